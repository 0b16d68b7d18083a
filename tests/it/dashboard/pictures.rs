//! Pictures of the pages, under `target/pictures`. `scripts/pictures` takes them into the README.

use super::{Desk, card, history::send};
use crate::support::browser::Look;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::path::Path;

const DESK: Look = Look {
    width: 1280,
    height: 760,
    is_dark: false,
};
const PHONE: Look = Look {
    width: 390,
    height: 760,
    is_dark: true,
};

#[tokio::test]
async fn the_pages_of_the_readme_can_be_pictured() {
    let desk = Desk::start().await;
    let limited =
        json!({"resend": [{"api_key": "re_sending_only", "domains": ["birchwood.example"], "is_sending_only": true}]});
    desk.sandbox("/_accounts", &limited).await;
    let resend = json!({"api_key": "re_sending_only", "from": "Birchwood Dental <hello@birchwood.example>"});
    assert_eq!(desk.dev.admin_post("/api/integrations/resend", &resend).await.0, 200);
    for sample in [
        "vapi/end-of-call-report",
        "vapi/status-update",
        "vapi/end-of-call-report",
    ] {
        send(&desk, sample).await;
    }
    desk.dev.wait_for_sms(2).await;
    let desktop = desk.owner("/dashboard/integrations", DESK).await;
    let phone = desk.owner("/dashboard/integrations", PHONE).await;
    for (page, name) in [(&desktop, "integrations"), (&phone, "integrations-phone")] {
        page.find(&card("resend", "limited")).await;
        save(name, &page.picture().await);
    }
    desktop.click("#pages a[href='/dashboard/events']").await;
    desktop.shows("tbody", "end-of-call-report").await;
    desktop
        .run(
            "[...document.querySelectorAll('tbody a')].find(a => a.textContent.includes('end-of-call')).click()",
            json!([]),
        )
        .await;
    desktop.shows("event-view", "Send a text").await;
    save("event", &desktop.picture().await);
    desktop.click("#pages a[href='/dashboard/rules']").await;
    desktop.click("tbody a").await;
    desktop.find("rule-editor [data-outcome=planned]").await;
    save("rule", &desktop.picture().await);
}

fn save(name: &str, picture: &str) {
    let bytes = STANDARD.decode(picture).expect("base64");
    assert!(bytes.starts_with(b"\x89PNG"), "a picture");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pictures");
    std::fs::create_dir_all(&folder).expect("a folder below target");
    std::fs::write(folder.join(format!("{name}.png")), bytes).expect("written");
}
