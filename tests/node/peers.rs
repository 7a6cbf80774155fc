//! Who may associate (`[[dimse.peers]]`): DCMTK and pynetdicom hear why they are rejected, by PS3.8's result, source and reason.

use crate::support::{Node, has, phantom, python, run, storescu};

const PEERS: &str = r#"
[[dimse.peers]]
name = "ct1"
ae_titles = ["CT1"]
networks = ["127.0.0.0/8"]
sop_classes = ["verification", "1.2.840.10008.5.1.4.1.1.2"]
max_associations = 1
stat = true

[[dimse.peers]]
name = "elsewhere"
ae_titles = ["CT2"]
networks = ["10.0.0.0/8", "fd00::/8"]

[[dimse.peers]]
name = "tls only"
ae_titles = ["CT3"]
address = "127.0.0.1:1"
tls = true

[[dimse.peers]]
name = "small"
ae_titles = ["SMALL"]
max_object_mib = 1

[[dimse.peers]]
name = "users"
ae_titles = ["USERS"]
users = [{ name = "ali", passcode = "open sesame" }, { name = "night" }]
"#;

fn echo(node: &Node, calling: &str, options: &[&str]) -> Result<String, String> {
    let port = node.dimse.port().to_string();
    run("echoscu", &[&["-v", "-aet", calling, "-aec", "TRIAGED"], options, &["127.0.0.1", &port]].concat())
}

#[test]
fn dcmtk_is_let_in_by_title_and_network_and_hears_why_not() {
    if !has("echoscu") || !has("storescu") {
        return;
    }
    let node = Node::start_with_file(PEERS, &[]);
    echo(&node, "CT1", &[]).unwrap();
    for (calling, reason) in [("NOBODY", "Calling AE Title"), ("CT2", "Calling AE Title"), ("CT3", "No Reason")] {
        let refused = echo(&node, calling, &[]).unwrap_err();
        assert!(refused.contains("Rejected Permanent") && refused.contains(reason), "{calling}: {refused}");
    }
    // The same again is counted, and not told again.
    for _ in 0..3 {
        echo(&node, "NOBODY", &[]).unwrap_err();
    }
    let told =
        node.log().lines().filter(|line| line.contains("association rejected") && line.contains("NOBODY")).count();
    assert_eq!(told, 1, "{}", node.log());
    let metrics = node.get("/metrics").1;
    // A reason has a counter for each result and source, most of them 0.
    let counted = |reason: &str| -> f64 {
        let of_reason =
            metrics.lines().filter(|line| line.starts_with("triaged_rejections_total") && line.contains(reason));
        of_reason
            .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok()).expect("a count"))
            .sum()
    };
    assert_eq!(counted("calling-AE-title-not-recognized"), 5.0);
    assert_eq!(counted("no-reason-given"), 1.0);
    // The objects of a peer that is STAT are scored first.
    let series = phantom(&["--slices", "2"]);
    let files = crate::support::dicom_files(series.path());
    storescu(&node, &["-aet", "CT1"], &files).unwrap();
    node.wait_for_slices(2);
    assert_eq!(
        node.query::<i64>("SELECT min(priority) FROM slices"),
        node.query::<i64>("SELECT max(priority) FROM slices")
    );
    let other = phantom(&["--slices", "2", "--seed", "7"]);
    storescu(&node, &["-aet", "SMALL"], &crate::support::dicom_files(other.path())).unwrap();
    node.wait_for_slices(4);
    let priorities: i64 =
        node.query("SELECT count(DISTINCT s.priority) FROM slices s JOIN instances i ON i.id = s.instance_id");
    assert_eq!(priorities, 2);
}

#[test]
fn pynetdicom_is_held_to_its_classes_places_and_users() {
    let Some(python) = python() else { return };
    let node = Node::start_with_file(PEERS, &[]);
    let script = r#"
import sys, time
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation
CT, MR, VERIFICATION = '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.5.1.4.1.1.4', '1.2.840.10008.1.1'
def associate(title, *classes, user=None):
    ae = AE(ae_title=title)
    for uid in classes:
        ae.add_requested_context(uid)
    items = []
    if user:
        identity = UserIdentityNegotiation()
        identity.user_identity_type, identity.primary_field, identity.secondary_field = user
        identity.positive_response_requested = True
        items = [identity]
    return ae.associate('127.0.0.1', int(sys.argv[1]), ae_title='TRIAGED', ext_neg=items)
def why(*who, **more):
    # On a busy machine pynetdicom sometimes sees the end of the connection before the rejection that came with it.
    for _ in range(5):
        a = associate(*who, **more)
        assert not a.is_established, who
        if a.is_rejected:
            p = a.acceptor.primitive
            return (p.result, p.result_source, p.diagnostic)
    raise AssertionError('never rejected')
first = associate('CT1', VERIFICATION, CT, MR)
assert first.is_established
assert [c.abstract_syntax for c in first.accepted_contexts] == [VERIFICATION, CT], first.accepted_contexts
assert [c.result for c in first.rejected_contexts] == [1], first.rejected_contexts
# A second one at the same time is one too many: come back later.
assert why('CT1', VERIFICATION) == (2, 3, 2)
first.release()
# The place is free once the node has closed the association.
for _ in range(100):
    again = associate('CT1', VERIFICATION)
    if again.is_established:
        break
    time.sleep(0.05)
again.release()
assert why('USERS', VERIFICATION) == (1, 1, 1)
assert why('USERS', VERIFICATION, user=(2, b'ali', b'guess')) == (1, 1, 1)
known = associate('USERS', VERIFICATION, user=(2, b'ali', b'open sesame'))
assert known.is_established
assert known.acceptor.user_identity is not None and known.acceptor.user_identity.server_response in (None, b'')
assert known.send_c_echo().Status == 0
known.release()
by_name = associate('USERS', VERIFICATION, user=(1, b'night', b''))
assert by_name.is_established
by_name.release()
assert why('NOBODY', VERIFICATION) == (1, 1, 3)
"#;
    run(python.to_str().unwrap(), &["-c", script, &node.dimse.port().to_string()])
        .unwrap_or_else(|e| panic!("{e}\n{}", node.log()));
    assert!(!node.log().contains("guess") && !node.log().contains("sesame"));
}

#[test]
fn without_peers_anybody_may_associate_and_the_log_warns() {
    if !has("echoscu") {
        return;
    }
    let node = Node::start(&[]);
    node.wait_for_log("any host may associate");
    echo(&node, "ANYBODY", &[]).unwrap();
    let known = Node::start_with_file(PEERS, &[]);
    assert!(!known.log().contains("any host may associate"));
    let check = String::from_utf8(known.cli(&["check"]).stdout).unwrap();
    assert!(
        check.lines().any(|line| line.starts_with("warn") && line.contains("DICOM peers") && line.contains("SMALL")
            || line.contains("small")),
        "{check}"
    );
}
