//! What every synthetic study keeps to, drawn into healthy phantoms.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use triaged_imaging::phantom::{PhantomSpec, slices};
use triaged_imaging::{decode_frame, read_file};

use super::*;
use crate::data::{Index, Side, Slice, Split, SplitBy, example, mask};

/// A folder with a healthy phantom a seed, of so many slices.
fn heads(folder: &Path, seeds: &[u64], count: u32) {
    let images = folder.join("stage_2_train");
    std::fs::create_dir_all(&images).expect("a folder");
    let mut labels = String::from("ID,Label\n");
    for &seed in seeds {
        for (number, slice) in slices(&PhantomSpec { slices: count, lesion: None, seed }).enumerate() {
            let id = format!("ID_head_{seed}_{number:02}");
            slice.object.write_to_file(images.join(format!("{id}.dcm"))).expect("written");
            labels += &format!("{id}_any,0\n");
        }
    }
    std::fs::write(folder.join("stage_2_train.csv"), labels).expect("labels");
}

fn hounsfield(file: &Path) -> Vec<f32> {
    decode_frame(&read_file(file).expect("a file"), 0).expect("a frame").hounsfield()
}

#[test]
fn synthetic_studies_keep_to_their_masks_labels_and_heads() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, out) = (folder.path().join("heads"), folder.path().join("synthetic"));
    heads(&source, &[11, 12], 24);
    let written = write(std::slice::from_ref(&source), &out, 8, 500).expect("written");
    assert_eq!(written.tiles.len(), 8);
    assert!(written.positive > 8 && written.negative > 100, "{written:?}");
    let (healthy, index) = (Index::read(&source).expect("heads"), Index::read(&out).expect("an index"));
    assert!(index.problems.lines().is_empty(), "{:?}", index.problems);
    let originals: BTreeMap<(&str, i64), &Slice> = healthy
        .slices
        .iter()
        .map(|slice| ((slice.patient.as_str(), slice.position.expect("a place")), slice))
        .collect();

    let mut kinds = BTreeSet::new();
    let mut kinds_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let labels = std::fs::read_to_string(out.join("stage_2_train.csv")).expect("labels");
    for row in labels.lines().filter_map(|row| row.strip_suffix(",1")) {
        let (id, kind) = row.rsplit_once('_').expect("an id and a kind");
        kinds_of.entry(id.to_owned()).or_default().insert(kind.to_owned());
        kinds.insert(kind.to_owned());
    }
    for kind in ["any", "epidural", "intraparenchymal", "subdural"] {
        assert!(kinds.contains(kind), "{kinds:?} lack {kind}");
    }

    // Whom they were made of, looked at once.
    let mut heads_of: BTreeMap<&str, Head> = BTreeMap::new();
    for (patient, slices) in index.patients() {
        let origin = slices[0].origin.as_ref().expect("whom it was made of");
        assert!(slices.iter().all(|slice| slice.origin.as_ref() == Some(origin)), "{patient}: one stack, one origin");
        assert!(slices.iter().all(|slice| slice.study == slices[0].study && slice.study != origin.study));
        let mut in_order = slices.clone();
        in_order.sort_by_key(|slice| slice.position);
        let bleeding: Vec<usize> = (0..in_order.len()).filter(|&at| in_order[at].positive).collect();
        let heads =
            heads_of.entry(&origin.patient).or_insert_with(|| Head::new(healthy_stack(&source, &origin.patient)));
        let mut last: Option<Vec<f32>> = None;
        for slice in &in_order {
            assert_eq!(slice.positive, slice.mask.is_some(), "{}: a mask says what the label says", slice.id);
            let original = originals[&(origin.patient.as_str(), slice.position.expect("a place"))];
            let (before, after) = (hounsfield(&original.file), hounsfield(&slice.file));
            let at = heads
                .stack
                .plates
                .iter()
                .position(|plate| (plate.z * 1000.0 - slice.position.expect("a place") as f32).abs() < 1.0)
                .expect("its plate");
            let section = heads.anatomy.sections[at].as_ref();
            let Some(path) = &slice.mask else {
                last = None;
                continue;
            };
            let blood = mask::read(path, mask::Way::default(), 512, 512).expect("a mask");
            let section = section.expect("blood is drawn where there is a closed skull");
            let marked: Vec<usize> = (0..blood.len()).filter(|&place| blood[place] > 0.5).collect();
            let area = marked.len() as f32 * heads.stack.spacing.powi(2);
            assert!((drawing::LEAST_AREA..4000.0).contains(&area), "{}: {area} mm²", slice.id);
            assert!(marked.iter().all(|&place| section.inside[place]), "{}: outside the skull", slice.id);
            let deep = marked.iter().filter(|&&place| section.depth.values[place] > 2.0);
            let (count, sum) = deep.fold((0, 0.0), |(count, sum), &place| (count + 1, sum + after[place]));
            if count > 40 {
                let mean = sum / count as f32;
                assert!((18.0..85.0).contains(&mean), "{}: {mean} HU", slice.id);
            }
            // Outside the skull nothing changed, unless the patient moved.
            let touched =
                (0..before.len()).filter(|&place| !section.inside[place] && before[place] != after[place]).count();
            assert!(touched == 0 || touched > 10_000, "{}: {touched} pixels", slice.id);
            // Contusions and blood in sulci are many pieces; one collection is one.
            let own = &kinds_of[&slice.id];
            assert!(own.contains("any") && own.len() > 1, "{}: {own:?}", slice.id);
            let is_one = own.len() == 2 && (own.contains("subdural") || own.contains("epidural"));
            if let Some(last) = last.as_ref().filter(|_| is_one) {
                let near = |place: usize| {
                    let (y, x) = (place / 512, place % 512);
                    (y.saturating_sub(14)..(y + 15).min(512)).any(|y| {
                        last[y * 512 + x.saturating_sub(14)..y * 512 + (x + 15).min(512)]
                            .iter()
                            .any(|blood| *blood > 0.5)
                    })
                };
                assert!(
                    marked.iter().any(|&place| near(place)),
                    "{}: blood of neighbouring slices is joined",
                    slice.id
                );
            }
            last = Some(blood).filter(|_| is_one);
        }
        if let (Some(first), Some(end)) = (bleeding.first(), bleeding.last()) {
            // One bleed is one run of slices; a second one may lie apart.
            let gaps = bleeding.windows(2).filter(|pair| pair[1] > pair[0] + 1).count();
            assert!(gaps <= 4 && end - first < 24, "{patient}: {bleeding:?}");
        }
    }

    // The split keeps them from the patients they were made of, as the files say.
    let mut both = healthy.clone();
    both.slices.iter_mut().step_by(7).for_each(|slice| slice.positive = true);
    // Two without hemorrhage, for a rule is chosen on both classes.
    both.slices.extend(["x", "y"].map(example));
    both.slices.extend(index.slices.clone());
    for split in Split::folds(&both, SplitBy::Patient, 2, &["synthetic".into()], 1).expect("folds") {
        let held: Vec<&Slice> = split.slices(&both, Side::Test);
        let trained = split.slices(&both, Side::Train);
        let drawn = trained.iter().filter_map(|slice| slice.origin.as_ref());
        assert!(drawn.clone().count() > 0);
        assert!(
            !drawn.clone().any(|origin| held.iter().any(|slice| origin.names(&slice.patient, slice.study.as_deref())))
        );
    }
}

fn healthy_stack(folder: &Path, patient: &str) -> stack::Stack {
    let sources = healthy(folder).expect("heads");
    let source = sources.iter().find(|source| source.patient == patient).expect("the patient");
    source.load().expect("read").expect("a stack")
}

#[test]
fn the_same_seeds_give_the_same_files_and_no_folder_is_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    heads(&path("heads"), &[21], 12);
    let make = |name: &str, seed: u64| write(&[path("heads")], &path(name), 2, seed);
    make("a", 7).expect("written");
    make("b", 7).expect("written");
    make("c", 70).expect("written");
    let files = |name: &str| -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for part in ["stage_2_train", "stage_2_masks", "."] {
            for entry in std::fs::read_dir(path(name).join(part)).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_file() {
                    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                    files.insert(name, std::fs::read(&path).expect("a file"));
                }
            }
        }
        files
    };
    let (a, b) = (files("a"), files("b"));
    assert!(a.len() > 24 && a == b);
    assert!(files("c").iter().all(|(name, bytes)| a.get(name) != Some(bytes) || name == "stage_2_origins.csv"));
    let again = make("a", 7).expect_err("a folder in use").to_string();
    assert!(again.contains("holds files already"), "{again}");
    let again = || write(&[path("a")], &path("d"), 1, 1);
    assert!(matches!(again(), Err(SynthesisError::Synthetic(_))), "nobody is made of the synthetic");
    // Nor where a crash left neither labels nor origins.
    let kept = ["stage_2_train.csv", "stage_2_origins.csv"].map(|name| {
        let file = path("a").join(name);
        let bytes = std::fs::read(&file).expect("a file");
        std::fs::remove_file(&file).expect("removed");
        (file, bytes)
    });
    let unlabelled = write(&[path("a").join("stage_2_train")], &path("d"), 1, 1);
    assert!(matches!(unlabelled, Err(SynthesisError::Synthetic(_))), "{unlabelled:?}");
    kept.iter().for_each(|(file, bytes)| std::fs::write(file, bytes).expect("put back"));
    std::fs::remove_file(path("a").join("stage_2_origins.csv")).expect("removed");
    std::fs::write(path("a").join("stage_2_origins.csv"), "patient,origin,origin_study\n").expect("written");
    let unknown = Index::read(&path("a")).expect_err("nobody knows whom they were made of").to_string();
    assert!(unknown.contains("does not say whom"), "{unknown}");
}
