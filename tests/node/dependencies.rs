//! The packages that each package links: training and the crates below it do without the node's database, web server and HTTP client.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Command;

/// The lines of `cargo tree`; none where there is no cargo, said aloud.
fn tree(arguments: &[&str]) -> Option<BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--no-dedupe"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIP cargo tree {}: there is no cargo to ask", arguments.join(" "));
            return None;
        }
        Err(error) => panic!("cargo tree: {error}"),
    };
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

/// The packages that a package links, itself among them, by their names.
fn linked(package: &str) -> Option<BTreeSet<String>> {
    let lines = tree(&["--edges", "normal", "--format", "{p}", "--package", package])?;
    Some(lines.iter().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
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

/// Otherwise cargo compiles Burn and much else twice: for the programs, and for the tests.
#[test]
fn programs_and_tests_are_built_with_the_same_features() {
    let features = |edges: &str| tree(&["--workspace", "--edges", edges, "--format", "{p} [{f}]"]);
    let (Some(programs), Some(tests)) = (features("normal,build"), features("normal,build,dev")) else { return };
    assert!(programs.len() > 200 && tests.len() > programs.len(), "{} and {}", programs.len(), tests.len());
    let differ: Vec<&String> = programs.difference(&tests).collect();
    assert!(
        differ.is_empty(),
        "tests ask for further features of these; ask for the same in a package's dependencies: {differ:#?}"
    );
}
