//! Pictures that were made, the latest used up to so many bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Picture;

pub(super) struct Cache {
    most: usize,
    bytes: usize,
    /// Rises with each use.
    clock: u64,
    pictures: HashMap<Picture, (u64, Arc<[u8]>)>,
    by_use: BTreeMap<u64, Picture>,
}

impl Cache {
    /// Keeps at most so many bytes of pictures.
    pub(super) fn new(most: usize) -> Cache {
        Cache { most, bytes: 0, clock: 0, pictures: HashMap::new(), by_use: BTreeMap::new() }
    }

    pub(super) fn get(&mut self, picture: &Picture) -> Option<Arc<[u8]>> {
        let (used, png) = self.pictures.get_mut(picture)?;
        self.clock += 1;
        let kept = self.by_use.remove(used)?;
        self.by_use.insert(self.clock, kept);
        *used = self.clock;
        Some(png.clone())
    }

    pub(super) fn put(&mut self, picture: Picture, png: Arc<[u8]>) {
        if png.len() > self.most || self.pictures.contains_key(&picture) {
            return;
        }
        self.clock += 1;
        self.bytes += png.len();
        self.by_use.insert(self.clock, picture.clone());
        self.pictures.insert(picture, (self.clock, png));
        while self.bytes > self.most
            && let Some((_, oldest)) = self.by_use.pop_first()
            && let Some((_, png)) = self.pictures.remove(&oldest)
        {
            self.bytes -= png.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rendering::{DisplayWindow, Size};

    fn picture(frame: u32) -> Picture {
        let (path, digest, transfer_syntax) = ("archive/a".into(), "ab".into(), "1.2.840.10008.1.2".into());
        Picture { path, digest, transfer_syntax, frame, window: DisplayWindow::Brain, size: Size::Full, marked: None }
    }

    #[test]
    fn what_was_used_least_lately_goes_first() {
        let mut cache = Cache::new(10);
        let png = |length: usize| -> Arc<[u8]> { vec![0; length].into() };
        cache.put(picture(1), png(4));
        cache.put(picture(2), png(4));
        assert!(cache.get(&picture(1)).is_some());
        cache.put(picture(3), png(4));
        assert!(cache.get(&picture(2)).is_none());
        assert!(cache.get(&picture(1)).is_some() && cache.get(&picture(3)).is_some());
        cache.put(picture(4), png(11));
        assert!(cache.get(&picture(4)).is_none());
        assert_eq!(cache.bytes, 8);
    }
}
