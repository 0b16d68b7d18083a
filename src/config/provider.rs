//! Settings of the providers' APIs.

use secrecy::SecretString;
use std::time::Duration;

section! {
    /// The providers' APIs.
    ProviderSettings {
        /// Base URL of Twilio's REST API.
        twilio_base_url: String = "https://api.twilio.com".into(), "HOOKSWITCH_TWILIO_BASE_URL";
        /// Base URL of Vapi's REST API.
        vapi_base_url: String = "https://api.vapi.ai".into(), "HOOKSWITCH_VAPI_BASE_URL";
        /// Base URL of Resend's API.
        resend_base_url: String = "https://api.resend.com".into(), "HOOKSWITCH_RESEND_BASE_URL";
        /// Base URL of ElevenLabs' API.
        elevenlabs_base_url: String = "https://api.elevenlabs.io".into(), "HOOKSWITCH_ELEVENLABS_BASE_URL";
        /// Base URL of Google's APIs.
        google_base_url: String = "https://www.googleapis.com".into(), "HOOKSWITCH_GOOGLE_BASE_URL";
        /// Google's consent page.
        google_consent_url: String = "https://accounts.google.com/o/oauth2/v2/auth".into(),
            "HOOKSWITCH_GOOGLE_CONSENT_URL";
        /// Base URL of Google's token endpoint.
        google_token_base_url: String = "https://oauth2.googleapis.com".into(), "HOOKSWITCH_GOOGLE_TOKEN_BASE_URL";
        /// Id of this installation's OAuth client at Google. Without it Google Calendar cannot be
        /// connected.
        google_client_id: Option<String> = None, "HOOKSWITCH_GOOGLE_CLIENT_ID";
        /// Secret of this installation's OAuth client at Google.
        google_client_secret: Option<SecretString> = None, "HOOKSWITCH_GOOGLE_CLIENT_SECRET";
        /// Where Google sends people back to, exactly as it is registered there: the admin API's
        /// /api/integrations/google_calendar/callback.
        google_redirect_url: Option<String> = None, "HOOKSWITCH_GOOGLE_REDIRECT_URL";
        /// How long before its end an access token is refreshed.
        refresh_before_seconds: Duration = Duration::from_mins(10), "HOOKSWITCH_REFRESH_BEFORE_SECONDS";
        /// Networks that http.post may reach although they are private, such as 10.1.0.0/16. For
        /// installations that post to their own hosts.
        http_allowed_networks: Vec<String> = Vec::new(), "HOOKSWITCH_HTTP_ALLOWED_NETWORKS";
        /// Whether http.post may use http: beside https:.
        http_plain_allowed: bool = false, "HOOKSWITCH_HTTP_PLAIN_ALLOWED";
    }
}
