//! Codes that every program can answer.

codes! {
    400 INVALID_PARAMETER = "invalid_parameter";
    400 MALFORMED_JSON = "malformed_json";
    400 MALFORMED_REQUEST = "malformed_request";
    400 BAD_REQUEST = "bad_request"; // any 4xx that has no code of its own
    401 EXPIRED_TOKEN = "expired_token";
    401 INVALID_TOKEN = "invalid_token";
    401 MISSING_TOKEN = "missing_token";
    403 FORBIDDEN = "forbidden";
    403 RECENT_LOGIN_REQUIRED = "recent_login_required";
    404 NOT_FOUND = "not_found";
    405 METHOD_NOT_ALLOWED = "method_not_allowed";
    406 NOT_ACCEPTABLE = "not_acceptable";
    408 REQUEST_TIMEOUT = "request_timeout";
    409 IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress";
    412 STALE_VERSION = "stale_version";
    413 BODY_TOO_LARGE = "body_too_large";
    414 URI_TOO_LONG = "uri_too_long";
    415 UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type";
    417 EXPECTATION_FAILED = "expectation_failed";
    422 IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused";
    422 MESSAGE_REJECTED = "message_rejected";
    422 VALIDATION_FAILED = "validation_failed";
    428 IDEMPOTENCY_KEY_REQUIRED = "idempotency_key_required";
    429 RATE_LIMITED = "rate_limited";
    431 HEADERS_TOO_LARGE = "headers_too_large";
    500 INTERNAL = "internal"; // and any other 5xx
    502 BAD_UPSTREAM = "bad_upstream";
    503 UNAVAILABLE = "unavailable";
    504 UPSTREAM_TIMEOUT = "upstream_timeout";
}
