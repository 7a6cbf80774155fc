use std::hash::{DefaultHasher, Hash, Hasher};
use triaged_imaging::phantom::{Lesion, PhantomSpec, series};
fn main() {
    let t = std::time::Instant::now();
    let lesions = [
        None,
        Some(Lesion::Epidural),
        Some(Lesion::Subdural),
        Some(Lesion::Intraparenchymal),
        Some(Lesion::Subarachnoid),
        Some(Lesion::Intraventricular),
    ];
    for (i, lesion) in lesions.into_iter().enumerate() {
        for seed in [1u64, 7, 99, 500_003] {
            let mut h = DefaultHasher::new();
            for o in series(&PhantomSpec { slices: 12, lesion, seed }) {
                o.element(dicom_dictionary_std::tags::PIXEL_DATA).unwrap().to_bytes().unwrap().hash(&mut h);
            }
            println!("{i} {seed} {:x}", h.finish());
        }
    }
    eprintln!("{:?}", t.elapsed());
}
