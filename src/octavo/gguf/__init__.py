"""GGUF files, read without trusting them: header, tensor table, metadata; below ``models`` and ``text``, which both need them."""
