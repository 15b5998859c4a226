//! The public models: eight backbones, as published by their authors on the Hugging Face hub.

use super::ModelStoreError;

/// Weights file of every public model.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Settings of every public model.
pub const CONFIG_FILE: &str = "config.json";

/// A model that can be pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicModel {
    /// Released name minus the `dinov2_` prefix; also the name of its folder.
    pub name: &'static str,
    /// Repository on the hub.
    pub repository: &'static str,
    /// Length of an embedding.
    pub dim: usize,
    /// Parameters in millions, rounded.
    pub million_parameters: u32,
    /// Licence of the weights.
    pub licence: &'static str,
}

/// All public models.
pub const MODELS: [PublicModel; 8] = [
    public("vits14", "facebook/dinov2-small", 384, 22),
    public("vitb14", "facebook/dinov2-base", 768, 87),
    public("vitl14", "facebook/dinov2-large", 1024, 304),
    public("vitg14", "facebook/dinov2-giant", 1536, 1137),
    public("vits14_reg", "facebook/dinov2-with-registers-small", 384, 22),
    public("vitb14_reg", "facebook/dinov2-with-registers-base", 768, 87),
    public("vitl14_reg", "facebook/dinov2-with-registers-large", 1024, 304),
    public("vitg14_reg", "facebook/dinov2-with-registers-giant", 1536, 1137),
];

const fn public(
    name: &'static str,
    repository: &'static str,
    dim: usize,
    million_parameters: u32,
) -> PublicModel {
    PublicModel { name, repository, dim, million_parameters, licence: "Apache-2.0" }
}

/// Finds a model by short name, released name or repository.
pub(super) fn find(name: &str) -> Result<&'static PublicModel, ModelStoreError> {
    let short = name.strip_prefix("dinov2_").unwrap_or(name);
    let found = MODELS.iter().find(|model| model.name == short || model.repository == name);
    found.ok_or_else(|| ModelStoreError::UnknownModel {
        name: name.to_owned(),
        known: MODELS.map(|model| model.name).join(", "),
    })
}

/// Address of a file on the hub.
pub(super) fn url(endpoint: &str, model: &PublicModel, revision: &str, file: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    format!("{endpoint}/{}/resolve/{revision}/{file}", model.repository)
}
