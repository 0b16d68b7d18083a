//! The catalogue of codes that refusals carry, at ingress and in the admin API. A code says the
//! same wherever it stands: it has one status and one title. `schemas/problem.json` and the table
//! in `docs/api.md` are made from it.

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $status:literal $text:literal $title:literal;)+) => {
        /// Every code that a refusal of ingress or of the admin API carries.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ProblemCode { $($(#[doc = $doc])+ $variant),+ }

        impl ProblemCode {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }

            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// Its meaning, for `docs/problems.md`.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start()),+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    InvalidJson = 400 "invalid_json" "The body is not JSON";
    /// Ingress: the body is not a webhook of its source.
    NotTheFormat = 400 "not_the_format" "This is not a webhook of this source";
    /// A field is missing, unknown, of the wrong type or outside its limits; `errors` names it.
    InvalidField = 400 "invalid_field" "A field is not valid";
    /// A query parameter is unknown, occurs twice or is not valid; `errors` names it.
    InvalidQuery = 400 "invalid_query" "A query parameter is not valid";
    /// The cursor was changed, or belongs to another list, filter or organisation.
    CursorInvalid = 400 "cursor_invalid" "The cursor is not valid for this list";
    /// `If-Match` is not a quoted entity tag.
    IfMatchInvalid = 400 "if_match_invalid" "If-Match is not an entity tag";
    /// `Idempotency-Key` is not a text of 1 to 255 visible characters.
    IdempotencyKeyInvalid = 400 "idempotency_key_invalid" "The Idempotency-Key is not valid";
    /// The consent was not begun here by this person, was used already, or took too long.
    ConsentInvalid = 400 "consent_invalid" "This consent is not valid here";
    /// No bearer token, or one that is not valid here.
    Unauthenticated = 401 "unauthenticated" "A valid bearer token is needed";
    /// Ingress: no valid secret verifies the request. One answer, whatever the cause.
    NotVerified = 401 "not_verified" "No valid secret verifies this request";
    /// The token's role may not do this.
    Forbidden = 403 "forbidden" "The role of this token may not do this";
    /// A write with the cookie of a session lacks its `X-CSRF-Token`, or comes from another page.
    CsrfInvalid = 403 "csrf_invalid" "The session's X-CSRF-Token is needed";
    /// Pages of this origin may not use this API.
    OriginNotAllowed = 403 "origin_not_allowed" "Pages of this origin may not use this API";
    /// There is no such thing, or it belongs to someone else.
    NotFound = 404 "not_found" "There is nothing here";
    /// The provider or source exists and cannot be used in this version.
    NotServed = 404 "not_served" "This provider or source cannot be used yet";
    /// The path exists and takes other methods; see `Allow`.
    MethodNotAllowed = 405 "method_not_allowed" "This path takes other methods";
    /// Ingress: the body did not arrive in time.
    RequestTimeout = 408 "request_timeout" "The request did not arrive in time";
    /// It exists already, or was changed by someone else at the same time.
    Conflict = 409 "conflict" "It exists already or was changed meanwhile";
    /// The credential opens another account than the one that was connected.
    AccountDiffers = 409 "account_differs" "This is another account than before";
    /// Another organisation holds it, and can still read it at the provider.
    HeldElsewhere = 409 "held_elsewhere" "Another organisation holds it";
    /// The action's state does not allow this.
    NotFromState = 409 "not_from_state" "The action's state does not allow this";
    /// The rule ran for this event again, and acted or may still act.
    RanAgain = 409 "ran_again" "The rule ran for this event again";
    /// A newer release wrote this action or event, and this release does not know what it is.
    OfNewerRelease = 409 "of_newer_release" "Only a newer release knows what this is";
    /// Nothing of the dead event was kept that could be planned.
    NotReplayable = 409 "not_replayable" "This event cannot be put back";
    /// A live instance does not hold the key that is to seal.
    KeyNotEverywhere = 409 "key_not_everywhere" "An instance does not hold this key";
    /// A limit of the organisation is reached.
    LimitReached = 409 "limit_reached" "A limit is reached";
    /// The organisation has no credential for the provider that this needs.
    NotConnected = 409 "not_connected" "The provider is not connected";
    /// The first request with this `Idempotency-Key` is not answered yet.
    IdempotencyKeyInUse = 409 "idempotency_key_in_use" "The request with this key is being worked on";
    /// `If-Match` does not name the current version.
    PreconditionFailed = 412 "precondition_failed" "It was changed since it was read";
    /// The body is over the limit: 256 KiB, at ingress `HOOKSWITCH_BODY_BYTES_MAX`.
    PayloadTooLarge = 413 "payload_too_large" "The body is too large";
    /// Ingress: the path with its query is over the limit.
    PathTooLong = 414 "path_too_long" "The path is too long";
    /// The body is not `application/json`; at ingress not what the source sends.
    UnsupportedMediaType = 415 "unsupported_media_type" "This content type is not taken here";
    /// The provider refuses the credential; nothing was stored.
    RefusedByProvider = 422 "refused_by_provider" "The provider refuses this credential";
    /// The consent was not given, or the provider refuses what came of it; nothing was stored.
    ConsentRefused = 422 "consent_refused" "The consent came to nothing";
    /// The organisation's own credential cannot read it at the provider, whoever else holds it.
    NotReadable = 422 "not_readable" "Your credential cannot read it at the provider";
    /// The rule cannot be used; `errors` names the field.
    RuleInvalid = 422 "rule_invalid" "The rule cannot be used";
    /// The secret or its plan cannot verify anything.
    SecretInvalid = 422 "secret_invalid" "The signing secret cannot be used";
    /// The URL leads to an address that posts may not go to.
    AddressNotAllowed = 422 "address_not_allowed" "Posts may not go to this address";
    /// The `Idempotency-Key` came with another request.
    IdempotencyKeyReused = 422 "idempotency_key_reused" "This Idempotency-Key was used for another request";
    /// A PUT needs `If-Match`.
    PreconditionRequired = 428 "precondition_required" "If-Match is needed";
    /// The organisation sent more requests in a minute than it may.
    TooManyRequests = 429 "too_many_requests" "Too many requests";
    /// The organisation holds as many streams as it may. The lists can be asked without one.
    TooManyStreams = 429 "too_many_streams" "Too many open streams";
    /// Ingress: too many requests with ids that lead nowhere.
    RateLimited = 429 "rate_limited" "Too many requests";
    /// Our fault; the request's id finds it in the log.
    Internal = 500 "internal" "Something went wrong here";
    /// A stored value does not open with the keys that this installation has.
    Undecryptable = 500 "undecryptable" "A stored value cannot be decrypted";
    /// The database cannot be reached; the same request may work later.
    DatabaseUnavailable = 503 "database_unavailable" "The database cannot be reached";
    /// The provider cannot be reached, so nothing is known about the credential.
    ProviderUnreachable = 503 "provider_unreachable" "The provider cannot be reached";
    /// The keys that tokens are verified with cannot be loaded.
    TokenKeysUnavailable = 503 "token_keys_unavailable" "The keys of tokens cannot be loaded";
    /// This process holds as many streams as it may. The lists can be asked without one.
    StreamsFull = 503 "streams_full" "All streams are taken";
    /// Ingress: the event cannot be taken now.
    Unavailable = 503 "unavailable" "The event cannot be taken now";
    /// The admin API took over 10 seconds. A write may still be finished.
    Timeout = 503 "timeout" "It took too long";
}
