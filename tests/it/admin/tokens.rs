//! Which tokens are accepted. `every_route` holds the rights of each role.

use super::{OPERATOR_SECRET, SECRET, START, TestApp};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hookswitch::domain::OrgId;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use reqwest::Method;
use serde_json::{Value, json};

const PATH: &str = "/api/integrations/status";

pub(super) fn part(value: &str) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

/// Signs any texts as header and claims: whole numbers and shapes that no library would write.
pub(super) fn signed(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    format!(
        "{message}.{}",
        crypto::sign(message.as_bytes(), key, algorithm).unwrap()
    )
}

pub(super) fn hs256(header: &str, claims: &str) -> String {
    signed(
        header,
        claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::HS256,
    )
}

pub(super) fn claims(org: OrgId) -> Value {
    json!({
        "exp": START.as_seconds() + 3600, "iat": START.as_seconds(), "iss": "hookswitch", "aud": "hookswitch-admin",
        "sub": "person-1",
        "org_id": org, "role": "owner",
    })
}

pub(super) async fn status(app: &TestApp, token: &str) -> u16 {
    let answer = TestApp::send(app.request(Method::GET, PATH).bearer_auth(token)).await;
    if answer.status == 401 {
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.code(), "unauthenticated");
    }
    answer.status
}

#[tokio::test]
async fn claims_are_what_they_must_be_or_the_token_is_refused() {
    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    let app = TestApp::start().await;
    let good = claims(app.a);
    assert_eq!(status(&app, &hs256(HEADER, &good.to_string())).await, 200);
    let in_app_metadata =
        json!({ "org_id": null, "role": "authenticated", "app_metadata": { "org_id": app.a, "role": "viewer" } });
    let now = START.as_seconds();
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let mut supabase = good.clone();
    supabase.as_object_mut().unwrap().remove("org_id");
    supabase["role"] = json!("authenticated");
    supabase["app_metadata"] = in_app_metadata["app_metadata"].clone();
    assert_eq!(status(&app, &hs256(HEADER, &supabase.to_string())).await, 200);
    let mut both_equal = good.clone();
    both_equal["app_metadata"] = json!({ "org_id": app.a });
    assert_eq!(status(&app, &hs256(HEADER, &both_equal.to_string())).await, 200);

    let accepted = [
        with("exp", json!(now as f64 + 3600.5)),
        with("exp", json!((now + 3600) as f64)),
        with("iat", json!(now as f64 - 0.5)),
        with("nbf", json!(now as f64 - 1.5)),
        with("nbf", json!(-1)),
        with("aud", json!(["hookswitch-admin"])),
        with("aud", json!(["other", "hookswitch-admin"])),
    ];
    for claims in accepted {
        assert_eq!(status(&app, &hs256(HEADER, &claims.to_string())).await, 200, "{claims}");
    }
    for typ in ["JWT", "application/jwt", "at+jwt", "application/at+JWT"] {
        let header = json!({ "alg": "HS256", "typ": typ }).to_string();
        assert_eq!(status(&app, &hs256(&header, &good.to_string())).await, 200, "{typ}");
    }

    let refused = [
        with("exp", json!(now.to_string())),
        without("exp"),
        with("exp", json!(null)),
        with("exp", json!(now as f64 - 600.5)),
        with("exp", json!(1_000_000_000_000_000_000_u64)),
        with("exp", json!(-1)),
        with("exp", json!(now - 61)),
        with("nbf", json!("0")),
        with("nbf", json!(null)),
        with("nbf", json!(now + 3600)),
        with("iat", json!("now")),
        with("aud", json!(["other"])),
        with("aud", json!([])),
        with("aud", json!(["hookswitch-admin", 7])),
        with("aud", json!({ "hookswitch-admin": true })),
        without("aud"),
        with("aud", json!("hookswitch")),
        with("aud", json!("hookswitch-admin-2")),
        with("aud", json!("hookswitch-operator")),
        with("iss", json!("hookswitch/")),
        with("iss", json!(["hookswitch"])),
        without("iss"),
        without("sub"),
        with("sub", json!("")),
        with("sub", json!(7)),
        with("sub", json!("a\r\nb")),
        with("org_id", json!([app.a])),
        with("org_id", json!(null)),
        with("org_id", json!("")),
        with("org_id", json!(format!("urn:uuid:{}", app.a))),
        with("org_id", json!(app.a.to_string().replace('-', ""))),
        with("org_id", json!(OrgId::generate())),
        without("org_id"),
        with("role", json!("OWNER")),
        with("role", json!(["owner"])),
        with("role", json!("operator")),
        with("role", json!(null)),
        without("role"),
        with("app_metadata", json!({ "org_id": app.b })),
        with("app_metadata", json!({ "org_id": null })),
        with("app_metadata", json!({ "role": "superuser" })),
        with("app_metadata", json!([])),
        with("app_metadata", json!([app.a, "owner"])),
        json!([START.as_seconds() + 60]),
        {
            let mut claims = without("org_id");
            claims["user_metadata"] = json!({ "org_id": app.a });
            claims
        },
    ];
    for claims in refused {
        assert_eq!(status(&app, &hs256(HEADER, &claims.to_string())).await, 401, "{claims}");
    }
    let twice = good
        .to_string()
        .replacen('{', &format!("{{\"org_id\":\"{}\",", app.b), 1);
    assert_eq!(
        status(&app, &hs256(HEADER, &twice)).await,
        401,
        "a claim that occurs twice"
    );
}

#[tokio::test]
async fn headers_choose_nothing() {
    let app = TestApp::start().await;
    let good = claims(app.a).to_string();
    assert_eq!(status(&app, &hs256(r#"{"alg":"HS256"}"#, &good)).await, 200);
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","jku":"http://169.254.169.254/keys"}"#,
        r#"{"alg":"HS256","x5u":"http://169.254.169.254/keys"}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","cty":"JWT"}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","kid":""}"#,
        r#"{"alg":"HS256","kid":["a"]}"#,
        r#"{"typ":"JWT"}"#,
        "not json",
    ] {
        assert_eq!(status(&app, &hs256(header, &good)).await, 401, "{header}");
    }
    let long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(5_000));
    let whole = hs256(r#"{"alg":"HS256"}"#, &good);
    let (message, signature) = whole.rsplit_once('.').unwrap();
    let none = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&good));
    let hs384 = signed(
        r#"{"alg":"HS384"}"#,
        &good,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::HS384,
    );
    let padded = format!("{whole}==");
    for token in [
        hs256(&long, &good),
        none,
        hs384,
        padded,
        format!("{message}."),
        message.to_owned(),
        format!("{whole}.{signature}"),
        format!("{whole}.a.b"),
        format!("{message}.{}", URL_SAFE_NO_PAD.encode([0_u8; 32])),
        signed(
            r#"{"alg":"HS256"}"#,
            &good,
            &EncodingKey::from_secret(b"another secret that is long enough"),
            Algorithm::HS256,
        ),
        signed(
            r#"{"alg":"HS256"}"#,
            &good,
            &EncodingKey::from_secret(OPERATOR_SECRET.as_bytes()),
            Algorithm::HS256,
        ),
        "x".repeat(20_000),
        ".".repeat(3),
    ] {
        assert_eq!(status(&app, &token).await, 401, "{}", &token[..token.len().min(80)]);
    }
    // Only one bearer token in one Authorization header opens anything: no cookie does, no query.
    for request in [
        app.request(Method::GET, PATH),
        app.request(Method::GET, PATH)
            .header("cookie", format!("session={whole}; access_token={whole}")),
        app.request(Method::GET, &format!("{PATH}?access_token={whole}")),
        app.request(Method::GET, PATH).basic_auth("a", Some(&whole)),
        app.request(Method::GET, PATH).header("authorization", whole.clone()),
        app.request(Method::GET, PATH)
            .bearer_auth(&whole)
            .header("authorization", format!("Bearer {whole}")),
    ] {
        assert_eq!(TestApp::send(request).await.status, 401);
    }
}

#[tokio::test]
async fn operators_and_organisations_do_not_meet() {
    let app = TestApp::start().await;
    // An operator flag in an organisation's token, and an organisation's claims in an operator's.
    let mut flagged = claims(app.a);
    flagged["hookswitch_role"] = json!("operator");
    let flagged = hs256(r#"{"alg":"HS256"}"#, &flagged.to_string());
    assert_eq!(
        TestApp::send(app.request(Method::GET, "/operator/organizations").bearer_auth(flagged))
            .await
            .status,
        404
    );
    let by_operators_key = |claims: &Value| {
        signed(
            r#"{"alg":"HS256"}"#,
            &claims.to_string(),
            &EncodingKey::from_secret(OPERATOR_SECRET.as_bytes()),
            Algorithm::HS256,
        )
    };
    let mut operator = json!({ "exp": START.as_seconds() + 60, "iss": "hookswitch-operator", "aud": "hookswitch-operator", "sub": "op" });
    assert_eq!(
        TestApp::send(
            app.request(Method::GET, "/operator/organizations")
                .bearer_auth(by_operators_key(&operator))
        )
        .await
        .status,
        401,
        "without the claim"
    );
    operator["hookswitch_role"] = json!("operator");
    assert_eq!(
        TestApp::send(
            app.request(Method::GET, "/operator/organizations")
                .bearer_auth(by_operators_key(&operator))
        )
        .await
        .status,
        200
    );
    operator["aud"] = json!("hookswitch-admin");
    assert_eq!(
        TestApp::send(
            app.request(Method::GET, "/operator/organizations")
                .bearer_auth(by_operators_key(&operator))
        )
        .await
        .status,
        401
    );

    for body in [json!({ "org_id": app.a }), json!({ "orgId": app.a })] {
        app.operator(Method::POST, "/api/debug/invalidate-cache", &body)
            .await
            .expect(200);
    }
    assert_eq!(app.dropped(), 2);
    let wrong = app
        .operator(Method::POST, "/operator/cache/invalidate", &json!({ "org_id": "all" }))
        .await
        .expect(400);
    assert_eq!(wrong.field(), "org_id");
}

#[test]
fn weak_keys_do_not_start() {
    use hookswitch::config::AdminSettings;
    use secrecy::SecretString;
    let secret = |text: &str| Some(SecretString::from(text));
    let long = "0123456789abcdef0123456789abcdef";
    let table = [
        (
            AdminSettings {
                jwt_secret: secret(&long[..31]),
                ..AdminSettings::default()
            },
            "HOOKSWITCH_JWT_SECRET",
        ),
        (AdminSettings::default(), "HOOKSWITCH_JWT_SECRET"),
        (
            AdminSettings {
                jwt_secret: secret(long),
                jwt_jwks_url: Some("https://issuer.example.com".into()),
                ..AdminSettings::default()
            },
            "HOOKSWITCH_JWT_SECRET",
        ),
        (
            AdminSettings {
                jwt_secret: secret(long),
                operator_jwt_secret: secret("short"),
                ..AdminSettings::default()
            },
            "HOOKSWITCH_OPERATOR_JWT_SECRET",
        ),
        (
            AdminSettings {
                jwt_secret: secret(long),
                operator_jwt_secret: secret(long),
                ..AdminSettings::default()
            },
            "HOOKSWITCH_OPERATOR_JWT_SECRET",
        ),
        (
            AdminSettings {
                jwt_secret: secret(long),
                operator_jwt_audience: "hookswitch-admin".into(),
                ..AdminSettings::default()
            },
            "HOOKSWITCH_OPERATOR_JWT_AUDIENCE",
        ),
    ];
    for (settings, name) in table {
        let faults = hookswitch::admin::check_settings(&settings);
        assert!(faults.iter().any(|fault| fault.name == name), "{name}: {faults:?}");
        assert!(!format!("{faults:?}").contains(long), "a fault repeats no secret");
    }
    assert!(
        hookswitch::admin::check_settings(&AdminSettings {
            jwt_secret: secret(long),
            ..AdminSettings::default()
        })
        .is_empty()
    );
}
