"""``reduce(x, last)``: the sum of all elements or of each row; a ladder from the textbook tree to the speed of the memory."""
