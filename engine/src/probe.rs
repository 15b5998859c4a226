//! Classification heads on frozen features, by the protocols of DINOv2 (`dinov2/eval/linear.py`
//! and `log_regression.py`): many linear heads trained at once, or logistic regression.
//!
//! Works on tokens computed once; heads are trained on the CPU whatever the backbone ran on.

mod recipe;
mod views;
mod heads;
mod linear;
mod lbfgs;
mod logistic;
mod head;
mod fit;

pub use fit::{Plan, Tried, fit_head};
pub use head::{Head, HeadInfo, Method, Prediction, Score};
pub use heads::{Evaluation, Heads, Ties};
pub use lbfgs::{Minimum, minimise};
pub use linear::{GridPoint, LEARNING_RATES, LabelledTokens, LinearConfig, Trained, train_linear};
pub use logistic::{LogisticRegression, StrengthScore, c_grid, choose_c, fit_logistic};
pub use recipe::{Recipe, Scale};
pub use views::training_view;
