-- The newest verdict, by which deeds about it say what their person saw.
DROP VIEW worklist;
CREATE VIEW worklist AS
SELECT study_uid, accession_number, patient_id, state, flagged, score, threshold,
       slices_received, slices_scored, slices_ineligible, slices_failed,
       first_received_at, last_received_at, decided_at,
       (SELECT min(delivered_at) FROM outbox o WHERE o.study_uid = studies.study_uid
          AND NOT EXISTS (SELECT 1 FROM sent_documents d WHERE d.notification_id = o.id)) AS notified_at,
       acknowledged_at, revision,
       verdict, missing, warnings, set_aside, acknowledged_by, seen_at, seen_by,
       -- From the last object before the first flagged verdict to its first delivered alert. Alerts may come before the study is whole.
       (SELECT max(0.0, (julianday(min(o.delivered_at)) - julianday(v.last_received_at)) * 86400.0)
        FROM verdicts v JOIN outbox o ON o.study_uid = v.study_uid AND o.revision = v.revision
        WHERE v.id = (SELECT min(id) FROM verdicts f WHERE f.study_uid = studies.study_uid AND f.flagged = 1)
          AND o.kind = 'flagged' AND o.delivered_at IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM sent_documents d WHERE d.notification_id = o.id)) AS seconds_to_alert,
       former_patient_ids, former_accession_numbers, patient_name, birth_date, sex, referring_physician,
       study_date, study_description, modality, station_name, institution_name, calling_ae, peer,
       (SELECT max(id) FROM verdicts v WHERE v.study_uid = studies.study_uid) AS verdict_id
FROM studies;
