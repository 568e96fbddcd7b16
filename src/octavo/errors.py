"""The exception hierarchy, with the HTTP status of each error and whether a retry can help.

    OctavoError                     500
    ├── InvalidRequestError         400   the client sent something we cannot honour
    │   ├── ContextLengthError      400   prompt + max_tokens can never fit
    │   ├── UnsupportedParameterError 400 a known parameter that we do not honour yet
    │   └── PayloadTooLargeError    413
    ├── AuthenticationError         401
    ├── NotFoundError               404
    ├── OverloadedError             503   retryable, carries ``retry_after_s``
    │   ├── TooManyRequestsError    429   one tenant's quota or rate
    │   │   └── SloUnattainableError 429   the SLO of its service class cannot be attained now
    │   ├── LoadingError            503
    │   └── ShuttingDownError       503
    ├── EngineError                 500
    │   ├── RequestFailedError      500   this request alone failed (e.g. non-finite logits)
    │   └── EngineDeadError         503   retryable: the engine died or hung; it is being restarted
    ├── ConfigError                 500   start-up only: a setting is wrong
    ├── MissingPackageError         500   a package of an extra is not installed (``extras.require``)
    ├── BenchError                  500   `octavo bench`: a measurement could not be made
    │   └── ResultFileError         500   not a result file, or one of another schema version
    ├── KernelError                 500   a GPU kernel cannot be compiled, loaded or launched
    └── ModelError                  500   start-up only
        ├── ModelNotFoundError      500
        ├── DownloadError           500   retryable
        │   └── ChecksumError       500   retryable
        ├── WeightFormatError       500   corrupt, truncated or malicious file
        └── UnsupportedModelError   500

Messages say what came, what was expected and what to do. Each class states its HTTP ``status``, its machine-readable
``code`` (OpenAI's words where they exist) and ``retryable``.
"""

from __future__ import annotations


class OctavoError(Exception):
    """Root of every error that Octavo raises on purpose."""

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"
    retryable: bool = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequestError(OctavoError):
    """A field of the request is malformed or beyond its cap; ``param`` names it."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class ContextLengthError(InvalidRequestError):
    """The prompt and its requested output can never fit in the context or the KV cache."""

    code = "context_length_exceeded"


class UnsupportedParameterError(InvalidRequestError):
    """A parameter of the API that is not honoured yet and that would change the answer."""

    code = "unsupported_parameter"


class PayloadTooLargeError(InvalidRequestError):
    """The request body is larger than the server accepts."""

    status = 413
    code = "payload_too_large"


class AuthenticationError(OctavoError):
    """No API key, or a wrong one."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotFoundError(OctavoError):
    """Unknown model or route."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class OverloadedError(OctavoError):
    """The queue is full; ``retry_after_s`` comes from the measured drain rate."""

    status = 503
    type = "overloaded_error"
    code = "queue_full"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyRequestsError(OverloadedError):
    """This tenant has used up what it may."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class SloUnattainableError(TooManyRequestsError):
    """The machine's own arithmetic says that the SLO of the request's service class would be violated."""

    code = "slo_unattainable"


class LoadingError(OverloadedError):
    """The model is still being loaded."""

    code = "model_loading"


class ShuttingDownError(OverloadedError):
    """The server drains and takes no new requests."""

    code = "shutting_down"


class EngineError(OctavoError):
    """The engine failed."""

    code = "engine_error"


class RequestFailedError(EngineError):
    """One request failed; the others go on."""

    code = "request_failed"


class EngineDeadError(EngineError):
    """The engine process died or hung with this request in flight."""

    status = 503
    code = "engine_dead"
    retryable = True


class ConfigError(OctavoError):
    """A setting is unknown, out of range or contradicts another."""

    code = "config_error"


class MissingPackageError(OctavoError):
    """An optional package is not installed; ``param`` names it, the message the extra that brings it."""

    code = "missing_package"


class BenchError(OctavoError):
    """A measurement could not be made: the server cannot be reached, a trace is malformed."""

    code = "bench_error"


class ResultFileError(BenchError):
    """A file is not a result of ``octavo bench``, or one of another schema version."""

    code = "result_file"


class KernelError(OctavoError):
    """A kernel cannot be compiled, loaded or launched; the message has the compiler's or the driver's words."""

    code = "kernel_error"


class ModelError(OctavoError):
    """A model cannot be found, fetched or loaded."""

    code = "model_error"


class ModelNotFoundError(ModelError):
    """No model registry entry, folder, file or hub repository of this name."""

    code = "model_not_found"


class DownloadError(ModelError):
    """A model could not be fetched."""

    code = "download_failed"
    retryable = True


class ChecksumError(DownloadError):
    """What was fetched is not what the model registry lists."""

    code = "checksum_mismatch"


class WeightFormatError(ModelError):
    """A weight file is corrupt, truncated or not what it says."""

    code = "weight_format"


class UnsupportedModelError(ModelError):
    """A sound model that Octavo cannot run (architecture, tensor type, tokenizer)."""

    code = "unsupported_model"
