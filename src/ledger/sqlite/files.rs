//! The archive's files of a study's instances.

use rusqlite::{OptionalExtension, params};

use super::Reader;
use crate::ledger::{ImageFile, InstanceFile, Result, StoredMap};

impl Reader {
    /// The instances of a study that still have their file, by series and instance number. Blocks.
    pub fn instance_files(&self, study_uid: &str) -> Result<Vec<InstanceFile>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT series_uid, sop_uid, path FROM instances WHERE study_uid = ?1 AND removed_at IS NULL
                 ORDER BY series_uid, instance_number, sop_uid",
            )?;
            let rows = statement.query_map([study_uid], |row| {
                Ok(InstanceFile { series_uid: row.get(0)?, sop_uid: row.get(1)?, path: row.get(2)? })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The map that a slice's score has a box of, with rows and columns of the slice; `None` where there is none. Blocks.
    pub fn heat_map(
        &self,
        study_uid: &str,
        series_uid: &str,
        sop_uid: &str,
        frame: u32,
    ) -> Result<Option<(StoredMap, u32, u32)>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT h.map_rows, h.map_columns, h.map, h.left, h.top, h.width, h.height, c.slice_rows, c.slice_columns
                 FROM instances i JOIN slices s ON s.instance_id = i.id JOIN scores c ON c.id = s.score_id
                 JOIN heat_maps h ON h.score_id = c.id
                 WHERE i.study_uid = ?1 AND i.series_uid = ?2 AND i.sop_uid = ?3 AND s.frame = ?4",
            )?;
            let map = |row: &rusqlite::Row<'_>| {
                let map = StoredMap {
                    rows: row.get(0)?,
                    columns: row.get(1)?,
                    values: row.get(2)?,
                    covers: [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?],
                };
                Ok((map, row.get(7)?, row.get(8)?))
            };
            Ok(statement.query_row(params![study_uid, series_uid, sop_uid, frame], map).optional()?)
        })
    }

    /// The file of one instance; `None` where there is no such instance. Blocks.
    /// The state is that of the slice of frame `frame` (from 1); a frame without a row of its own is as ineligible as its object.
    pub fn image_file(
        &self,
        study_uid: &str,
        series_uid: &str,
        sop_uid: &str,
        frame: u32,
    ) -> Result<Option<ImageFile>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT iif(i.removed_at IS NULL, i.path, NULL), i.digest, i.transfer_syntax,
                        coalesce((SELECT s.state FROM slices s WHERE s.instance_id = i.id AND s.frame = ?4), 'ineligible')
                 FROM instances i WHERE i.study_uid = ?1 AND i.series_uid = ?2 AND i.sop_uid = ?3",
            )?;
            let file = |row: &rusqlite::Row<'_>| {
                Ok(ImageFile {
                    path: row.get(0)?,
                    digest: row.get(1)?,
                    transfer_syntax: row.get(2)?,
                    state: row.get(3)?,
                })
            };
            Ok(statement.query_row(params![study_uid, series_uid, sop_uid, frame], file).optional()?)
        })
    }
}
