"""The load generator: sends a plan at its intended times and writes down what each request saw. HTTP/1.1, OpenAI's API.

``load_generator`` follows the plan, ``connection_pool`` and ``connection`` carry bytes, ``response`` turns a stream into a
record.
"""
