//! A stand-in for Twilio's messages that can hang and answer when it is released, which the sandbox
//! does not.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How the stand-in answers a send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    Accept,
    /// Takes the message and never answers.
    AcceptAndHang,
    /// Never takes it and never answers.
    Hang,
    /// Takes the message and answers when it is released.
    AcceptWhenReleased,
    /// Down.
    Unavailable,
}

#[derive(Default)]
pub struct Seen {
    pub mode: Option<Mode>,
    /// Account SIDs and their auth tokens.
    pub tokens: BTreeMap<String, String>,
    pub messages: Vec<Value>,
    pub posts: usize,
    pub lists: usize,
}

#[derive(Clone, Default)]
pub struct Twilio(pub Arc<Mutex<Seen>>, CancellationToken);

impl Twilio {
    async fn answer(
        self,
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<http::Response<Full<Bytes>>, Infallible> {
        let answer = |status: u16, body: Value| {
            http::Response::builder()
                .status(status)
                .body(Full::new(Bytes::from(body.to_string())))
                .expect("an answer")
        };
        let authorization = request
            .headers()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let is_post = request.method() == "POST";
        let account = request.uri().path().split('/').nth(3).unwrap_or_default().to_owned();
        let body = request
            .into_body()
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let field = |name: &str| {
            let text = String::from_utf8_lossy(&body).into_owned();
            text.split('&')
                .find_map(|pair| pair.strip_prefix(&format!("{name}=")))
                .unwrap_or_default()
                .replace("%2B", "+")
                .replace('+', if name == "Body" { " " } else { "+" })
        };
        let (mode, good) = {
            let mut seen = self.0.lock().expect("lock");
            use base64::Engine;
            let expected = format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(format!(
                    "{account}:{}",
                    seen.tokens.get(&account).map_or("none", String::as_str)
                ))
            );
            if is_post {
                seen.posts += 1;
            } else {
                seen.lists += 1;
            }
            (seen.mode.unwrap_or(Mode::Accept), authorization == expected)
        };
        if !good {
            return Ok(answer(
                401,
                json!({"code": 20003, "message": "Authenticate", "status": 401}),
            ));
        }
        if !is_post {
            let messages: Vec<Value> = self.0.lock().expect("lock").messages.clone();
            let messages: Vec<Value> = messages
                .into_iter()
                .filter(|message| message["account_sid"] == account.as_str())
                .collect();
            return Ok(answer(200, json!({"messages": messages, "next_page_uri": null})));
        }
        let message = json!({"sid": format!("SM{}", uuid::Uuid::now_v7().simple()), 
            "to": field("To"), "from": field("From"), "body": field("Body"),
            "account_sid": account, "direction": "outbound-api", "status": "queued", "date_created": null});
        if matches!(mode, Mode::Accept | Mode::AcceptAndHang | Mode::AcceptWhenReleased) {
            self.0.lock().expect("lock").messages.push(message.clone());
        }
        match mode {
            Mode::Accept => Ok(answer(201, message)),
            Mode::Unavailable => Ok(answer(503, json!({"code": 20503, "message": "down", "status": 503}))),
            Mode::AcceptWhenReleased => {
                self.1.cancelled().await;
                Ok(answer(201, message))
            }
            Mode::AcceptAndHang | Mode::Hang => std::future::pending().await,
        }
    }

    /// Its URL, and the tasks that answer there.
    pub(super) async fn serve(&self) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let base_url = format!("http://{}", listener.local_addr().expect("bound"));
        let mut server = JoinSet::new();
        let served = self.clone();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let twilio = served.clone();
                let service = hyper::service::service_fn(move |request| twilio.clone().answer(request));
                connections.spawn(async move {
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        (base_url, server)
    }

    /// Answers what waits for it.
    pub fn release(&self) {
        self.1.cancel();
    }

    pub fn set(&self, mode: Mode) {
        self.0.lock().expect("lock").mode = Some(mode);
    }

    pub fn count(&self) -> (usize, usize) {
        let seen = self.0.lock().expect("lock");
        (seen.posts, seen.messages.len())
    }
}
