//! The place of a slice along the normal of its own plane (PS3.3 C.7.6.2).

use dicom_dictionary_std::tags;
use triaged_imaging::Turn;

use super::frame::Frame;

/// The plane and place of a slice. Real objects lack all of it at times.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Plane {
    /// The unit normal of the plane, in patient coordinates: x to the left, y to the back, z to the head.
    pub normal: Option<[f64; 3]>,
    /// The place of the plane along its normal, in mm: from Image Position, else from Slice Location.
    pub place: Option<f64>,
    /// Slice Location in mm, from a place of the sender's own.
    pub location: Option<f64>,
    /// Slice Thickness in mm.
    pub thickness: Option<f64>,
    /// What brings the head upright in the image, where the patient lay on the side or prone, or the image is mirrored. The model's input
    /// is turned so.
    pub turn: Turn,
    /// The degrees by which the head lies aslant in the image then: 0 to 45.
    pub slant: f64,
}

impl Plane {
    pub(super) fn of(frame: &Frame) -> Plane {
        let orientation = frame.orientation();
        let normal = orientation.as_ref().and_then(normal);
        // One position of a whole object is none of its several frames.
        let position = match frame.is_one_of_several() {
            true => frame.numbers_of_macro(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT),
            false => frame.numbers(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT),
        };
        let location = || match frame.is_one_of_several() {
            true => frame.numbers_of_macro(tags::CT_POSITION_SEQUENCE, tags::SLICE_LOCATION)?.first().copied(),
            false => frame.number(tags::CT_POSITION_SEQUENCE, tags::SLICE_LOCATION),
        };
        let place = match position.as_deref() {
            // No image has its corner in the middle of the gantry: this is what systems write that do not know positions, or must not tell
            // them. Slice Location says more.
            Some(&[0.0, 0.0, 0.0]) => location().or(Some(0.0)),
            // Without an orientation the plane is taken for axial.
            Some(&[x, y, z]) => Some(dot(normal.unwrap_or([0.0, 0.0, 1.0]), [x, y, z])),
            _ => location(),
        };
        let thickness = frame.number(tags::PIXEL_MEASURES_SEQUENCE, tags::SLICE_THICKNESS).filter(|mm| *mm > 0.0);
        // What spans no plane says nothing of how a head lies.
        let lies = orientation.filter(|_| normal.is_some());
        let turn = lies.as_ref().map_or_else(Turn::default, Turn::upright);
        let slant = lies.as_ref().map_or(0.0, |orientation| turn.left_over(orientation));
        Plane { normal, place, location: location(), thickness, turn, slant }
    }

    /// Degrees between the plane and the axial one; none where the orientation is absent.
    pub fn tilt(&self) -> Option<f64> {
        self.normal.map(|[_, _, z]| z.abs().min(1.0).acos().to_degrees())
    }

    /// Names the orientation, to a degree or so: slices of one stack have the same.
    pub fn stack(&self) -> Option<String> {
        let [x, y, z] = self.normal?.map(|n| (n * 50.0).round() as i32);
        Some(format!("{x},{y},{z}"))
    }
}

/// The unit normal of Image Orientation's six direction cosines; none where they span no plane. Of the two it is the one whose
/// greatest component is positive, so that slices whose rows run the other way lie in the same order.
fn normal(cosines: &[f64; 6]) -> Option<[f64; 3]> {
    let [a, b, c, d, e, f] = *cosines;
    let normal = [b * f - c * e, c * d - a * f, a * e - b * d];
    let length = dot(normal, normal).sqrt();
    // Direction cosines of a plane give length 1; what is far from it is no orientation.
    if !(0.5..2.0).contains(&length) {
        return None;
    }
    let greatest = normal.into_iter().fold(0.0_f64, |most, n| if n.abs() > most.abs() { n } else { most });
    Some(normal.map(|n| n / length * greatest.signum()))
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(cosines: [f64; 6]) -> Plane {
        Plane { normal: normal(&cosines), ..Plane::default() }
    }

    #[test]
    fn tilt_is_measured_against_the_axial_plane() {
        assert_eq!(plane([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).tilt(), Some(0.0));
        assert_eq!(plane([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]).tilt(), Some(0.0), "prone");
        let coronal = plane([1.0, 0.0, 0.0, 0.0, 0.0, -1.0]).tilt().unwrap();
        assert!((coronal - 90.0).abs() < 1e-9);
        let ge = plane([1.0, 0.0, 0.0, 0.0, 0.9483237, -0.3173047]).tilt().unwrap();
        assert!((ge - 18.5).abs() < 0.01, "{ge}");
        assert_eq!(plane([0.0; 6]).tilt(), None);
        assert_eq!(plane([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).tilt(), None, "the same direction twice");
    }

    #[test]
    fn opposite_normals_are_one_stack_and_planes_apart_are_two() {
        let up = plane([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let down = plane([1.0, 0.0, 0.0, 0.0, -1.0, 0.0]);
        assert_eq!((up.stack(), up.normal), (down.stack(), down.normal));
        assert_ne!(up.stack(), plane([1.0, 0.0, 0.0, 0.0, 0.0, -1.0]).stack());
    }
}
