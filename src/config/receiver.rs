//! Settings of ingress.

use secrecy::SecretString;
use std::time::Duration;

section! {
    /// Ingress: where it listens, what it refuses.
    ReceiverSettings {
        /// Address on which webhooks are received.
        ingress_address: String = "0.0.0.0:8080".into(), "HOOKSWITCH_INGRESS_ADDRESS";
        /// Scheme and host under which senders reach ingress, such as https://hooks.example.com.
        /// Part of Twilio's signature; never taken from the request's Host header.
        public_url: Option<String> = None, "HOOKSWITCH_PUBLIC_URL";
        /// Addresses of proxies, as networks such as 10.0.0.0/8. Their X-Forwarded-For names the
        /// sender that limits by address count; without this setting all senders share the proxy's
        /// allowance. It also names the address in the audit. Their X-Forwarded-Proto and
        /// X-Forwarded-Host are believed where no public URL is set.
        trusted_proxies: Vec<String> = Vec::new(), "HOOKSWITCH_TRUSTED_PROXIES";
        /// Secrets that the platform's own Vapi account signs with (HMAC, Vapi's default plan),
        /// separated by commas while one is rotated. They verify routes that an operator gave to
        /// the platform, on the shared URL, where no organisation's secret verifies.
        platform_vapi_secrets: Option<SecretString> = None, "HOOKSWITCH_PLATFORM_VAPI_SECRETS";
        /// The same for auth tokens of the platform's own Twilio account.
        platform_twilio_secrets: Option<SecretString> = None, "HOOKSWITCH_PLATFORM_TWILIO_SECRETS";
        /// Largest webhook body accepted, in bytes. Larger ones get 413; Vapi's reports can reach
        /// hundreds of kB.
        body_bytes_max: usize = 1 << 20, "HOOKSWITCH_BODY_BYTES_MAX";
        /// Largest request head (line and headers) accepted, in bytes. Larger ones get 431.
        head_bytes_max: usize = 32 << 10, "HOOKSWITCH_HEAD_BYTES_MAX";
        /// Most headers accepted in a request. More get 431.
        headers_max: usize = 100, "HOOKSWITCH_HEADERS_MAX";
        /// Longest path with query accepted, in bytes. Longer ones get 414.
        path_bytes_max: usize = 4096, "HOOKSWITCH_PATH_BYTES_MAX";
        /// Time for a request's head to arrive. Later: 408.
        head_seconds_max: Duration = Duration::from_secs(10), "HOOKSWITCH_HEAD_SECONDS_MAX";
        /// Time for a connection to stay idle between requests. Keep it above the idle time of the
        /// load balancer in front: a request that meets our close is lost.
        idle_seconds_max: Duration = Duration::from_secs(75), "HOOKSWITCH_IDLE_SECONDS_MAX";
        /// Time for a request's body to arrive. Later: 408.
        body_seconds_max: Duration = Duration::from_secs(10), "HOOKSWITCH_BODY_SECONDS_MAX";
        /// Time for an event to become durable. Later: 503 with Retry-After.
        publish_seconds_max: Duration = Duration::from_secs(5), "HOOKSWITCH_PUBLISH_SECONDS_MAX";
        /// Most connections held at once. The file limit less a reserve bounds it too.
        connections_max: usize = 10_000, "HOOKSWITCH_CONNECTIONS_MAX";
        /// Most connections held at once from one address, unless it is a trusted proxy.
        connections_per_address_max: usize = 2_000, "HOOKSWITCH_CONNECTIONS_PER_ADDRESS_MAX";
        /// Most events made durable at once. Further events wait, so that memory stays within this
        /// number times the body limit.
        requests_max: usize = 1_024, "HOOKSWITCH_REQUESTS_MAX";
        /// Time that a verified event waits for a permit to be made durable. Then the sender gets
        /// 503 with Retry-After, so that it learns of an overload soon. Permits are held while a
        /// silent broker is waited for. In front of a broker this is longer than that.
        turn_seconds_max: Duration = Duration::from_secs(3), "HOOKSWITCH_TURN_SECONDS_MAX";
        /// Requests a second whose ids lead nowhere, from one address, before they get 429.
        unknown_per_second_max: u32 = 100, "HOOKSWITCH_UNKNOWN_PER_SECOND_MAX";
        /// Signing keys kept ready, one for each secret, some 500 bytes each. A secret beyond them
        /// costs a decryption in memory, never a query.
        signing_keys_cached_max: usize = 20_000, "HOOKSWITCH_SIGNING_KEYS_CACHED_MAX";
        /// Rejections kept for people to look at.
        rejections_max: u32 = 10_000, "HOOKSWITCH_REJECTIONS_MAX";
        /// Age of the route snapshot from which a request that would be refused gets 503 instead
        /// of 401.
        snapshot_stale_seconds: Duration = Duration::from_secs(10), "HOOKSWITCH_SNAPSHOT_STALE_SECONDS";
        /// Posts of our own that may have led to a webhook before it is refused.
        hops_max: u32 = 3, "HOOKSWITCH_HOPS_MAX";
    }
}
