//! Settings of the providers' APIs.

section! {
    /// The providers' APIs.
    ProviderSettings {
        /// Base URL of Twilio's REST API.
        twilio_base_url: String = "https://api.twilio.com".into(), "HOOKSWITCH_TWILIO_BASE_URL";
        /// Base URL of Vapi's REST API.
        vapi_base_url: String = "https://api.vapi.ai".into(), "HOOKSWITCH_VAPI_BASE_URL";
        /// Networks that http.post may reach although they are private, such as 10.1.0.0/16. For installations that post to their own hosts.
        http_allowed_networks: Vec<String> = Vec::new(), "HOOKSWITCH_HTTP_ALLOWED_NETWORKS";
        /// Whether http.post may use http: beside https:.
        http_plain_allowed: bool = false, "HOOKSWITCH_HTTP_PLAIN_ALLOWED";
    }
}
