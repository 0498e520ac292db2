//! Which thumbnails exist. Pure.
//!
//! A client asks for any size; a server that made each of them would let one client fill its disk. So a wish is rounded
//! up to a size on a short list, which has those of the specification, one larger, and the whole picture: at most 5
//! scaled and 37 cropped thumbnails of a picture, and as many that may move.

/// How a picture is fitted to a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The whole picture; its ratio stays, and both sides are at least as long as asked.
    Scale,
    /// Exactly the size, with what does not fit cut off evenly.
    Crop,
}

/// The thumbnail that a client asks for, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The least width.
    pub width: u32,
    /// The least height.
    pub height: u32,
    /// How to fit the picture to them.
    pub method: Method,
    /// Whether it moves if the picture does.
    pub animated: bool,
}

/// The length that stands for "as long as the picture is".
const WHOLE: u32 = u32::MAX;
const SCALED: [(u32, u32); 4] = [(320, 240), (640, 480), (800, 600), (1600, 1200)];
const CROPPED: [u32; 6] = [32, 96, 320, 640, 800, 1600];

impl Wanted {
    /// The smallest size on the list that is as large in both directions.
    pub(super) fn rounded(self) -> Self {
        let (width, height) = match self.method {
            Method::Scale => {
                let fits =
                    |(width, height): &(u32, u32)| *width >= self.width && *height >= self.height;
                SCALED.into_iter().find(fits).unwrap_or((WHOLE, WHOLE))
            }
            Method::Crop => {
                let up = |length: u32| CROPPED.into_iter().find(|side| *side >= length);
                up(self.width)
                    .zip(up(self.height))
                    .unwrap_or((WHOLE, WHOLE))
            }
        };
        Self {
            width,
            height,
            ..self
        }
    }
}

/// What to do with a picture: first make it `scaled`, then keep the middle that is `kept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) scaled: (u32, u32),
    pub(super) kept: (u32, u32),
}

impl Plan {
    /// The plan for a picture of this size. Nothing is ever enlarged: what is too small stays as it is.
    pub(super) fn new(wanted: Wanted, (width, height): (u32, u32)) -> Self {
        let scaled = cover(wanted, (width, height));
        let kept = match wanted.method {
            Method::Scale => scaled,
            Method::Crop => (wanted.width.min(scaled.0), wanted.height.min(scaled.1)),
        };
        Self { scaled, kept }
    }

    /// The same plan for the picture as it is stored, if it is to be turned by 90 degrees afterwards.
    pub(super) fn turned(self) -> Self {
        let turn = |(width, height)| (height, width);
        Self {
            scaled: turn(self.scaled),
            kept: turn(self.kept),
        }
    }
}

/// The smallest size with the picture's ratio whose sides are both at least as long as wanted; the picture's own if
/// it has a shorter side.
fn cover(wanted: Wanted, (width, height): (u32, u32)) -> (u32, u32) {
    if wanted.width >= width || wanted.height >= height {
        return (width, height);
    }
    let by_width = u64::from(wanted.width) * u64::from(height);
    let by_height = u64::from(wanted.height) * u64::from(width);
    let whole =
        |product: u64, side: u32| u32::try_from(product.div_ceil(u64::from(side))).unwrap_or(WHOLE);
    if by_width >= by_height {
        (wanted.width, whole(by_width, width))
    } else {
        (whole(by_height, height), wanted.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(width: u32, height: u32, method: Method) -> Wanted {
        Wanted {
            width,
            height,
            method,
            animated: false,
        }
    }

    #[test]
    fn a_wish_is_rounded_up_to_the_next_size() {
        let table = [
            (wanted(32, 32, Method::Crop), (32, 32)),
            (wanted(33, 20, Method::Crop), (96, 32)),
            (wanted(96, 96, Method::Crop), (96, 96)),
            (wanted(32, 32, Method::Scale), (320, 240)),
            (wanted(320, 241, Method::Scale), (640, 480)),
            (wanted(800, 600, Method::Scale), (800, 600)),
            (wanted(5000, 10, Method::Scale), (WHOLE, WHOLE)),
            (wanted(10, 1601, Method::Crop), (WHOLE, WHOLE)),
        ];
        for (wish, (width, height)) in table {
            let rounded = wish.rounded();
            assert_eq!(
                (rounded.width, rounded.height, rounded.method),
                (width, height, wish.method),
                "{wish:?}"
            );
        }
    }

    #[test]
    fn nothing_is_enlarged_and_nothing_is_smaller_than_it_must_be() {
        let sides = [1, 2, 31, 32, 33, 95, 100, 319, 320, 321, 1000, 4001];
        for (width, height) in sides
            .into_iter()
            .flat_map(|width| sides.map(|height| (width, height)))
        {
            for method in [Method::Scale, Method::Crop] {
                for (want_width, want_height) in [(32, 32), (320, 240), (96, 320), (WHOLE, WHOLE)] {
                    let plan = Plan::new(wanted(want_width, want_height, method), (width, height));
                    let case =
                        format!("{width}x{height} {method:?} {want_width}x{want_height}: {plan:?}");
                    assert!(plan.scaled.0 <= width && plan.scaled.1 <= height, "{case}");
                    assert!(plan.kept.0 >= want_width.min(width), "{case}");
                    assert!(plan.kept.1 >= want_height.min(height), "{case}");
                    if method == Method::Crop {
                        assert!(
                            plan.kept.0 <= want_width && plan.kept.1 <= want_height,
                            "{case}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_ratio_stays() {
        let plan = Plan::new(wanted(320, 240, Method::Scale), (4000, 2000));
        assert_eq!((plan.scaled, plan.kept), ((480, 240), (480, 240)));
        let plan = Plan::new(wanted(96, 96, Method::Crop), (400, 200));
        assert_eq!((plan.scaled, plan.kept), ((192, 96), (96, 96)));
        assert_eq!(plan.turned().scaled, (96, 192));
    }
}
