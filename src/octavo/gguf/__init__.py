"""GGUF files: header, tensor table and metadata, parsed as untrusted input."""
