//! `If-Match` holds until the write: of writers that have read one version, one wins.

use crate::support::app::{
    TestApp,
    admin::Answer,
    sandbox::{SID, TOKEN},
};
use futures_util::future::join_all;
use hookswitch::admin::Role;
use reqwest::Method;
use serde_json::{Value, json};

/// The same request by five at once, with the tag that all of them have read.
async fn five(api: &TestApp, method: &Method, path: &str, tag: &str, body: &Value) -> Vec<Answer> {
    join_all((0..5).map(|_| {
        let request = api
            .request(method.clone(), path)
            .bearer_auth(api.token(api.a, Role::Owner))
            .header("if-match", tag);
        TestApp::send(request.json(body))
    }))
    .await
}

#[tokio::test]
async fn of_writers_that_have_read_one_version_one_wins() {
    let api = &TestApp::builder().provider_sandbox().start().await;
    let new = json!({ "source": "vapi", "name": "calls" });
    let endpoint = api.post(api.a, "/api/endpoints", &new).await.expect(201).json();
    let endpoint = format!("/api/endpoints/{}", endpoint["id"].as_str().unwrap());
    let new = json!({ "name": "crm", "url": "https://93.184.215.14/hooks" });
    api.post(api.a, "/api/destinations", &new).await.expect(201);
    let twilio = json!({ "account_sid": SID, "auth_token": TOKEN });
    let integration = "/api/integrations/twilio";
    api.post(api.a, integration, &twilio).await.expect(200);
    let crm = "/api/destinations/crm";
    for (shown, method, path, body) in [
        (
            crm,
            Method::PATCH,
            crm.to_owned(),
            json!({ "url": "https://93.184.215.14/other" }),
        ),
        (crm, Method::POST, format!("{crm}/secrets"), json!({})),
        (
            &*endpoint,
            Method::PATCH,
            endpoint.clone(),
            json!({ "name": "front desk" }),
        ),
        (&*endpoint, Method::POST, format!("{endpoint}/secrets"), json!({})),
        (integration, Method::POST, integration.to_owned(), twilio.clone()),
    ] {
        let tag = if shown == integration {
            api.status(api.a, "twilio").await["etag"].as_str().unwrap().to_owned()
        } else {
            api.get(api.a, shown).await.expect(200).etag()
        };
        let answers = five(api, &method, &path, &tag, &body).await;
        let said: Vec<_> = answers
            .iter()
            .map(|answer| (answer.status, answer.text.clone()))
            .collect();
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status < 300);
        assert_eq!((won.len(), lost.len()), (1, 4), "{method} {path}: {said:?}");
        for answer in lost {
            assert_eq!(answer.expect(412).code(), "precondition_failed", "{method} {path}");
        }
    }
}

/// Both have seen that there is none of the name: the second one's secret does not replace the
/// first one's.
#[tokio::test]
async fn of_writers_that_make_a_destination_of_one_name_one_wins() {
    let api = TestApp::start().await;
    let new = json!({ "name": "crm", "url": "https://93.184.215.14/hooks" });
    let answers = join_all((0..5).map(|_| api.post(api.a, "/api/destinations", &new))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status < 300);
    assert_eq!((won.len(), lost.len()), (1, 4));
    for answer in lost {
        assert_eq!(answer.expect(409).code(), "conflict");
    }
}
