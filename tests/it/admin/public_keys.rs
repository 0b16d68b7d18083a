//! Tokens that an identity provider signs: its public keys are fetched with care.

use super::{
    SECRET, START, TestApp,
    tokens::{claims, hs256, part, signed, status},
};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hookswitch::{admin::FetchKeys, config::Settings};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Keys from an identity provider, with counters.
struct Source {
    document: String,
    fetches: AtomicUsize,
    is_away: AtomicBool,
    /// Where it is there, every fetch but the first waits for a permit.
    gate: Option<tokio::sync::Semaphore>,
}

#[async_trait]
impl FetchKeys for Source {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let earlier = self.fetches.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = self.gate.as_ref().filter(|_| earlier > 0) {
            drop(gate.acquire().await);
        }
        if self.is_away.load(Ordering::SeqCst) {
            Err("away".to_owned())
        } else {
            Ok(self.document.clone().into_bytes())
        }
    }
}

/// Made for this test by `openssl ecparam -genkey -name prime256v1`; PKCS#8.
const EC_KEY: &str = include_str!("../../data/jwt-es256.pem");

async fn app_with(source: Arc<Source>) -> TestApp {
    let mut settings = Settings::default();
    settings.admin.jwt_jwks_url = Some("https://issuer.example.com/keys".to_owned());
    TestApp::builder()
        .admin()
        .settings(settings)
        .public_keys(source)
        .start()
        .await
}

#[tokio::test]
async fn public_keys_are_fetched_with_care() {
    let key = EncodingKey::from_ec_pem(EC_KEY.as_bytes()).unwrap();
    let mut jwk =
        serde_json::to_value(jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
    jwk["kid"] = json!("one");
    let mut lying = jwk.clone();
    (lying["kid"], lying["alg"]) = (json!("lying"), json!("RS256"));
    let symmetric = json!({ "kty": "oct", "kid": "symmetric", "k": URL_SAFE_NO_PAD.encode(SECRET) });
    let document = json!({ "keys": [jwk, lying, symmetric, { "kty": "unheard-of", "kid": "x" }] }).to_string();
    let source = Arc::new(Source {
        document: document.clone(),
        fetches: AtomicUsize::new(0),
        is_away: AtomicBool::new(true),
        gate: None,
    });
    let app = app_with(source.clone()).await;
    let good = claims(app.a).to_string();
    let token = |kid: &str| {
        signed(
            &format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#),
            &good,
            &key,
            Algorithm::ES256,
        )
    };
    let fetches = || source.fetches.load(Ordering::SeqCst);

    assert_eq!(status(&app, &token("one")).await, 503, "no keys yet is not a bad token");
    source.is_away.store(false, Ordering::SeqCst);
    assert_eq!(status(&app, &token("one")).await, 503, "within the cooldown");
    assert_eq!(fetches(), 1);
    app.clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(status(&app, &token("one")).await, 200);
    assert_eq!(fetches(), 2);

    app.clock.advance(std::time::Duration::from_secs(10));
    for n in 0..200 {
        let kid = ["../../etc/passwd", "http://169.254.169.254/", "' or 1=1", "unknown"][n % 4];
        assert_eq!(status(&app, &token(&format!("{kid}{n}"))).await, 401);
    }
    assert_eq!(fetches(), 3, "200 unknown ids, one fetch");
    for (kid, header) in [("lying", "ES256"), ("symmetric", "ES256")] {
        assert_eq!(
            status(
                &app,
                &signed(
                    &format!(r#"{{"alg":"{header}","kid":"{kid}"}}"#),
                    &good,
                    &key,
                    Algorithm::ES256
                )
            )
            .await,
            401,
            "{kid}"
        );
    }
    let public = document.as_bytes();
    for header in [r#"{"alg":"HS256","kid":"one"}"#, r#"{"alg":"HS256","kid":"symmetric"}"#] {
        assert_eq!(status(&app, &hs256(header, &good)).await, 401);
        assert_eq!(
            status(
                &app,
                &signed(header, &good, &EncodingKey::from_secret(public), Algorithm::HS256)
            )
            .await,
            401
        );
    }
    let message = format!("{}.{}", part(r#"{"alg":"ES256","kid":"one"}"#), part(&good));
    assert_eq!(
        status(&app, &format!("{message}.{}", URL_SAFE_NO_PAD.encode([0_u8; 64]))).await,
        401,
        "a signature of zeros"
    );
    assert_eq!(
        status(&app, &signed(r#"{"alg":"ES256"}"#, &good, &key, Algorithm::ES256)).await,
        401,
        "no key id"
    );

    source.is_away.store(true, Ordering::SeqCst);
    let later = json!({ "exp": START.as_seconds() + 90_000 });
    let mut long = claims(app.a);
    long["exp"] = later["exp"].clone();
    let long = signed(
        r#"{"alg":"ES256","kid":"one"}"#,
        &long.to_string(),
        &key,
        Algorithm::ES256,
    );
    app.clock.advance(std::time::Duration::from_secs(3_700));
    let before = fetches();
    assert_eq!(
        status(&app, &long).await,
        200,
        "old keys serve while new ones cannot be fetched"
    );
    assert_eq!(fetches(), before + 1);
    assert_eq!(status(&app, &token("one")).await, 401, "expired by then");
}

#[tokio::test]
async fn a_known_key_serves_while_newer_keys_are_fetched() {
    let key = EncodingKey::from_ec_pem(EC_KEY.as_bytes()).unwrap();
    let mut jwk =
        serde_json::to_value(jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
    jwk["kid"] = json!("one");
    let source = Arc::new(Source {
        document: json!({ "keys": [jwk] }).to_string(),
        fetches: AtomicUsize::new(0),
        is_away: AtomicBool::new(false),
        gate: Some(tokio::sync::Semaphore::new(0)),
    });
    let app = app_with(source.clone()).await;
    let good = claims(app.a).to_string();
    let token = |kid: &str| {
        signed(
            &format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#),
            &good,
            &key,
            Algorithm::ES256,
        )
    };
    let (known, unknown) = (token("one"), token("two"));
    assert_eq!(status(&app, &known).await, 200);
    app.clock.advance(std::time::Duration::from_secs(10));
    let served = async {
        while source.fetches.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        for _ in 0..20 {
            assert_eq!(status(&app, &known).await, 200);
        }
        source.gate.as_ref().unwrap().add_permits(1);
    };
    let (waited, ()) = tokio::join!(status(&app, &unknown), served);
    assert_eq!((waited, source.fetches.load(Ordering::SeqCst)), (401, 2));
}
