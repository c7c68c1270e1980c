"""Errors that carry the HTTP status and the message prefix Qdrant answers with."""


class ApiError(Exception):
    """A refusal the client sees: `status` is the HTTP status, the text is Qdrant's wording."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.message = message


def bad_request(text: str) -> ApiError:
    return ApiError(400, f"Bad request: {text}")


def wrong_input(text: str) -> ApiError:
    return ApiError(400, f"Wrong input: {text}")


def format_error(text: str) -> ApiError:
    return ApiError(400, f"Format error in JSON body: {text}")


def forbidden(text: str) -> ApiError:
    return ApiError(403, f"Forbidden: {text}")


def not_found(text: str) -> ApiError:
    return ApiError(404, f"Not found: {text}")


def no_collection(name: str) -> ApiError:
    return not_found(f"Collection `{name}` doesn't exist!")


def conflict(text: str) -> ApiError:
    return ApiError(409, f"Wrong input: {text}")


def internal(text: str) -> ApiError:
    return ApiError(500, f"Service internal error: {text}")


def unavailable(text: str) -> ApiError:
    return ApiError(503, f"Service unavailable: {text}")
