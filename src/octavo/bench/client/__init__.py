"""The load generator: sends a plan at its intended times and writes down what each request saw. HTTP/1.1, OpenAI's API.

``session`` follows the plan, ``pool`` and ``connection`` carry bytes, ``answer`` turns a stream into a record.
"""
