//! Settings of the admin API, the operations listener, and the tokens that open them.

use secrecy::SecretString;

section! {
    /// The admin API, the operations listener, and the tokens that open them.
    AdminSettings {
        /// Address of the admin API.
        admin_address: String = "127.0.0.1:8081".into(), "HOOKSWITCH_ADMIN_ADDRESS";
        /// Origins whose pages may use the admin API from a browser (CORS), such as
        /// https://app.example.com. `loopback` is every origin on this machine, without cookies.
        admin_origins: Vec<String> = Vec::new(), "HOOKSWITCH_ADMIN_ORIGINS";
        /// Requests that one organisation may send to the admin API of one instance in a minute; 0
        /// is no limit.
        admin_requests_per_minute_max: u32 = 6_000, "HOOKSWITCH_ADMIN_REQUESTS_PER_MINUTE_MAX";
        /// Streams (`GET /api/stream`) that one organisation may hold at one instance; 0 turns
        /// streams off, and pages ask every five seconds instead.
        admin_streams_per_organisation_max: usize = 20, "HOOKSWITCH_ADMIN_STREAMS_PER_ORGANISATION_MAX";
        /// Streams that all organisations together may hold at one instance. Each is a connection.
        admin_streams_max: usize = 256, "HOOKSWITCH_ADMIN_STREAMS_MAX";
        /// Address of /metrics, /healthz and /readyz.
        operations_address: String = "127.0.0.1:8082".into(), "HOOKSWITCH_OPERATIONS_ADDRESS";
        /// Secret of HS256 tokens of organisations, at least 32 bytes. One of this and the JWKS
        /// URL.
        jwt_secret: Option<SecretString> = None, "HOOKSWITCH_JWT_SECRET";
        /// Where the public keys of RS256 or ES256 tokens are.
        jwt_jwks_url: Option<String> = None, "HOOKSWITCH_JWT_JWKS_URL";
        /// Expected issuer of organisations' tokens.
        jwt_issuer: String = "hookswitch".into(), "HOOKSWITCH_JWT_ISSUER";
        /// Expected audience of organisations' tokens.
        jwt_audience: String = "hookswitch-admin".into(), "HOOKSWITCH_JWT_AUDIENCE";
        /// Secret of HS256 tokens of operators, at least 32 bytes, other than the organisations'.
        operator_jwt_secret: Option<SecretString> = None, "HOOKSWITCH_OPERATOR_JWT_SECRET";
        /// Expected issuer of operators' tokens.
        operator_jwt_issuer: String = "hookswitch-operator".into(), "HOOKSWITCH_OPERATOR_JWT_ISSUER";
        /// Expected audience of operators' tokens.
        operator_jwt_audience: String = "hookswitch-operator".into(), "HOOKSWITCH_OPERATOR_JWT_AUDIENCE";
    }
}
