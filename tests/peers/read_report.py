"""Reads a structured report with highdicom, as template 1500, and prints a fact a line."""

import sys

import pydicom

try:
    from highdicom.sr import Comprehensive3DSR, MeasurementReport
except ImportError:
    print("SKIP highdicom is not here")
    sys.exit(3)

data_set = pydicom.dcmread(sys.argv[1])
print("patient", data_set.PatientName)
report = Comprehensive3DSR.from_dataset(data_set)
content = report.content
assert isinstance(content, MeasurementReport), type(content)
for region in content.get_planar_roi_measurement_groups():
    roi = region.roi
    image = roi.ContentSequence[0].ReferencedSOPSequence[0]
    points = [tuple(int(edge) for edge in point) for point in roi.value]
    print("region", image.ReferencedSOPInstanceUID, roi.graphic_type.value, points)
    print("region of", region.finding_type.value, *(f"{m.value:.1f} {m.unit.value}" for m in region.get_measurements()))
groups = content.get_image_measurement_groups()
assert len(groups) == 1, groups
(group,) = groups
finding = group.finding_type
print("finding", finding.value, finding.scheme_designator, finding.meaning)
print("tracking", group.tracking_uid)
algorithm = group.get_algorithm_identification() if hasattr(group, "get_algorithm_identification") else None
if algorithm is None:
    for item in group[0].ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "111001":
            print("algorithm", item.TextValue)
else:
    print("algorithm", algorithm.name, algorithm.version)
for image in group.source_images if hasattr(group, "source_images") else []:
    print("source", image.referenced_sop_instance_uid)
for item in group[0].ContentSequence:
    if item.ValueType == "IMAGE":
        print("source", item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
for measurement in group.get_measurements():
    print("certainty", measurement.value, measurement.unit.value)
for evaluation in group.get_qualitative_evaluations():
    print("evaluation", evaluation.value.value, evaluation.value.scheme_designator, evaluation.value.meaning)
