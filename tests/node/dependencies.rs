//! What each package links: training and the crates below it do without the node's database, web server and HTTP client.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Command;

/// The packages that a package links, itself among them, by their names; none where there is no cargo, said aloud.
fn linked(package: &str) -> Option<BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIP what {package} links: there is no cargo to ask");
            return None;
        }
        Err(error) => panic!("cargo tree: {error}"),
    };
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

#[test]
fn training_links_no_database_web_server_or_http_client() {
    const NODE_ONLY: [&str; 6] = ["triaged", "rusqlite", "libsqlite3-sys", "axum", "reqwest", "dicom-ul"];
    let Some(node) = linked("triaged") else { return };
    // The names are right: the node links them.
    assert!(NODE_ONLY.iter().all(|name| node.contains(*name)), "{node:?}");
    for package in ["triaged-training", "triaged-imaging", "triaged-kernels", "triaged-model"] {
        let Some(linked) = linked(package) else { return };
        assert!(linked.contains(package), "{package}: {linked:?}");
        let found: Vec<&str> = NODE_ONLY.into_iter().filter(|name| linked.contains(*name)).collect();
        assert!(found.is_empty(), "{package} links {found:?}");
    }
}
