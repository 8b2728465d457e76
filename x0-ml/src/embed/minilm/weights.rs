//! model.safetensors, tensor by tensor.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::LoadError;

/// Tensors that are taken out one by one; each is checked when it is taken.
pub(super) struct Weights(HashMap<String, Tensor>);

impl Weights {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, LoadError> {
        candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .map(Self)
            .map_err(|error| LoadError::Weights { reason: error.to_string() })
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let refuse = |reason: String| LoadError::Weights { reason };
        let tensor = self.0.remove(name).ok_or_else(|| refuse(format!("{name} is missing")))?;
        if tensor.dtype() != DType::F32 {
            return Err(refuse(format!("{name} is of type {:?}, and F32 is supported", tensor.dtype())));
        }
        if tensor.dims() != shape {
            return Err(refuse(format!("{name} has the shape {:?} instead of {shape:?}", tensor.dims())));
        }
        Ok(tensor)
    }

    /// The numbers of a tensor, all finite.
    pub(super) fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let tensor = self.tensor(name, shape)?;
        let numbers = tensor
            .flatten_all()
            .and_then(|flat| flat.to_vec1::<f32>())
            .map_err(|error| LoadError::Weights { reason: error.to_string() })?;
        if numbers.iter().all(|number| number.is_finite()) {
            Ok(numbers)
        } else {
            Err(LoadError::Weights { reason: format!("{name} has numbers that are not finite") })
        }
    }
}
