//! `/api/v1` is as its OpenAPI description says, as schemathesis finds.

use std::process::Command;

use serde_json::Value;

use crate::support::ledgers::{Fixture, Study};
use crate::support::python;
use crate::web::Served;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_its_description_says() {
    let Some(python) = python() else { return };
    let fixture = Fixture::new();
    fixture.judge(&Study::new("1.1", &[0.9, 0.1]), "webhook").await;
    fixture.judge(&Study::new("1.2", &[0.2]), "webhook").await;
    let node = Served::start(fixture).await;
    let description: Value = serde_json::from_str(&node.page_of("/api/v1/openapi.json").await).unwrap();
    // Each address that it names is there, with a study in place of {uid}.
    for (path, operations) in description["paths"].as_object().unwrap() {
        // Documents are made of files, which this study has not; schemathesis asks for them all the same.
        if operations.get("get").is_some() && !path.ends_with(".dcm") {
            node.page_of(&format!("/api/v1{}", path.replace("{uid}", "1.1"))).await;
        }
    }
    let url = node.address("/api/v1/openapi.json");
    let run = move || {
        Command::new(python)
            .args(["-m", "schemathesis.cli", "run", &url, "--checks", "all", "--max-examples", "40", "--seed", "1"])
            // A URL that the node does not have is a page, and answers 404 to TRACE and the like.
            .args(["--exclude-checks", "unsupported_method", "--no-color", "--suppress-health-check", "all"])
            .current_dir(std::env::temp_dir())
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("No module named") {
        eprintln!("SKIP schemathesis is not here (make test-deps)");
        return;
    }
    assert!(output.status.success(), "{said}");
    node.stop().await;
}
