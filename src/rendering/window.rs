//! The windows in which head CT is read.

use serde::Deserialize;

/// A display window (PS3.3 C.11.2.1.2) by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DisplayWindow {
    #[default]
    Brain,
    /// Wide enough that thin blood beside the skull is told from bone.
    Subdural,
    /// Narrow: early ischaemia.
    Stroke,
    Bone,
}

impl DisplayWindow {
    pub const ALL: [DisplayWindow; 4] =
        [DisplayWindow::Brain, DisplayWindow::Subdural, DisplayWindow::Stroke, DisplayWindow::Bone];

    pub fn name(self) -> &'static str {
        match self {
            DisplayWindow::Brain => "brain",
            DisplayWindow::Subdural => "subdural",
            DisplayWindow::Stroke => "stroke",
            DisplayWindow::Bone => "bone",
        }
    }

    /// Center and width in HU.
    pub fn center_and_width(self) -> (f32, f32) {
        match self {
            DisplayWindow::Brain => (40.0, 80.0),
            DisplayWindow::Subdural => (75.0, 215.0),
            DisplayWindow::Stroke => (40.0, 40.0),
            DisplayWindow::Bone => (480.0, 2500.0),
        }
    }

    /// From 0 black to 1 white.
    pub fn shade(self, hounsfield: f32) -> f32 {
        let (center, width) = self.center_and_width();
        ((hounsfield - center) / width + 0.5).clamp(0.0, 1.0)
    }
}
