//! Settings of the admin API, the operations listener, and the tokens that open them.

use secrecy::SecretString;

section! {
    /// The admin API, the operations listener, and the tokens that open them.
    AdminSettings {
        /// Address of the admin API and the dashboard.
        admin_address: String = "127.0.0.1:8081".into(), "HOOKSWITCH_ADMIN_ADDRESS";
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
