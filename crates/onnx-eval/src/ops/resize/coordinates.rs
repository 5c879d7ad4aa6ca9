//! Which place of an axis a place of the resized one is.

use super::lengths::Axis;
use crate::context::Context;
use crate::fault::Fault;

/// The attribute `coordinate_transformation_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    TfCropAndResize,
}

impl Coordinates {
    pub fn of(context: &Context) -> Result<Self, Fault> {
        match context.string("coordinate_transformation_mode", "half_pixel")? {
            "half_pixel" => Ok(Self::HalfPixel),
            "half_pixel_symmetric" if context.opset >= 19 => Ok(Self::HalfPixelSymmetric),
            "pytorch_half_pixel" => Ok(Self::PytorchHalfPixel),
            "align_corners" => Ok(Self::AlignCorners),
            "asymmetric" => Ok(Self::Asymmetric),
            "tf_half_pixel_for_nn" if context.opset < 13 => Ok(Self::TfHalfPixelForNn),
            "tf_crop_and_resize" => Ok(Self::TfCropAndResize),
            mode => Err(Fault::argument(
                "attribute 'coordinate_transformation_mode'",
                format!("'{mode}' at opset {}", context.opset),
                "half_pixel, pytorch_half_pixel, align_corners, asymmetric or tf_crop_and_resize, or since \
                 opset 19 half_pixel_symmetric, or before opset 13 tf_half_pixel_for_nn",
            )),
        }
    }

    /// Where in the axis a place of the resized one is; between two places for most.
    pub fn origin(self, axis: &Axis, at: usize) -> f64 {
        let x = at as f64;
        let last = axis.from as f64 - 1.0;
        let half_pixel = || axis.scale.divides(x + 0.5) - 0.5;
        match self {
            Self::HalfPixel => half_pixel(),
            // Centre on centre: half_pixel with the offset from / 2 · (1 − to / (scale · from)).
            Self::HalfPixelSymmetric => last / 2.0 + axis.scale.divides(x + 0.5 - axis.to as f64 / 2.0),
            Self::PytorchHalfPixel if axis.to > 1 => half_pixel(),
            Self::PytorchHalfPixel => 0.0,
            // The length with its fraction: ONNX's node tests have it so, ONNX Runtime does not.
            Self::AlignCorners if axis.to > 1 => x * last / (axis.length - 1.0),
            Self::AlignCorners => 0.0,
            Self::Asymmetric => axis.scale.divides(x),
            Self::TfHalfPixelForNn => axis.scale.divides(x + 0.5),
            // start + x (end − start) / (to − 1), written so that the ends are met exactly.
            Self::TfCropAndResize if axis.to > 1 => {
                let steps = axis.to as f64 - 1.0;
                last * (axis.region.0 * (steps - x) + axis.region.1 * x) / steps
            }
            Self::TfCropAndResize => last * (axis.region.0 + axis.region.1) / 2.0,
        }
    }

    /// Whether that place is beyond the ends, where only one mode looks at all.
    pub fn is_outside(self, axis: &Axis, at: usize) -> bool {
        let inside = 0.0..=axis.from as f64 - 1.0;
        self == Self::TfCropAndResize && !inside.contains(&self.origin(axis, at))
    }
}

/// The attribute `nearest_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

impl Rounding {
    pub fn of(context: &Context) -> Result<Self, Fault> {
        match context.string("nearest_mode", "round_prefer_floor")? {
            "round_prefer_floor" => Ok(Self::PreferFloor),
            "round_prefer_ceil" => Ok(Self::PreferCeil),
            "floor" => Ok(Self::Floor),
            "ceil" => Ok(Self::Ceil),
            mode => Err(Fault::argument(
                "attribute 'nearest_mode'",
                format!("'{mode}'"),
                "round_prefer_floor, round_prefer_ceil, floor or ceil",
            )),
        }
    }

    /// The nearest of so many places.
    pub fn nearest(self, x: f64, places: usize) -> usize {
        let down = match self {
            Self::PreferFloor => x - x.floor() <= 0.5,
            Self::PreferCeil => x - x.floor() < 0.5,
            Self::Floor => true,
            Self::Ceil => x == x.floor(),
        };
        let nearest = if down { x.floor() } else { x.floor() + 1.0 };
        // What is negative becomes 0.
        (nearest as usize).min(places - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_where_the_mode_says() {
        let nearest = |rounding: Rounding| [-0.75, 0.5, 1.25, 1.5, 2.0, 9.0].map(|x| rounding.nearest(x, 4));
        assert_eq!(nearest(Rounding::PreferFloor), [0, 0, 1, 1, 2, 3]);
        assert_eq!(nearest(Rounding::PreferCeil), [0, 1, 1, 2, 2, 3]);
        assert_eq!(nearest(Rounding::Floor), [0, 0, 1, 1, 2, 3]);
        assert_eq!(nearest(Rounding::Ceil), [0, 1, 2, 2, 2, 3]);
    }
}
