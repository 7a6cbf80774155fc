//! Explains CUDA's errors to whoever runs the node.

/// Error codes of the CUDA runtime (`cudaError`) after which a process cannot use the GPU any more, and what to do.
const LOST: [(u32, &str); 9] = [
    (46, "the GPU is taken by another process or busy: `nvidia-smi` lists the processes"),
    (100, "no GPU is there any more: see `nvidia-smi`, and `dmesg | grep NVRM` for the driver's last words"),
    (214, "the GPU's memory has an error that cannot be corrected (ECC): it must be reset or exchanged"),
    (220, "the link between GPUs failed: see `dmesg | grep NVRM`"),
    (226, "the GPU's memory has an error that was contained (ECC): see `dmesg | grep NVRM`"),
    (700, "a kernel used memory that is not its own; if it comes again, report it with the driver's version"),
    (710, "a kernel stopped by an assertion; if it comes again, report it with the driver's version"),
    (719, "a kernel stopped without a reason given: often failing hardware or power, see `dmesg | grep NVRM`"),
    (999, "the driver does not say why: see `dmesg | grep NVRM`, and restart the machine if it comes again"),
];

/// Advice for an administrator about an error of the model by which the GPU is lost; none for other errors.
///
/// ONNX Runtime writes `CUDA failure 719: unspecified launch failure ; GPU=0 ; …`.
pub(super) fn explained(error: &str) -> Option<&'static str> {
    let code = error.split("CUDA failure ").nth(1).or_else(|| error.split("CUDA error ").nth(1))?;
    let digits: String = code.chars().take_while(char::is_ascii_digit).collect();
    let code: u32 = digits.parse().ok()?;
    LOST.iter().find(|(known, _)| *known == code).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_cuda_is_named() {
        let said = "Non-zero status code returned while running Conv node. Name:'3_conv' Status Message: CUDA failure 719: \
                    unspecified launch failure ; GPU=0 ; hostname=ct ; file=cuda_call.cc ; line=129";
        assert!(explained(said).is_some_and(|what| what.contains("dmesg")));
        assert!(explained("CUDA failure 214: uncorrectable ECC error encountered").is_some_and(|w| w.contains("ECC")));
    }

    #[test]
    fn what_leaves_the_gpu_usable_is_no_loss() {
        for said in ["CUDA failure 2: out of memory ; GPU=0", "CUDA failure x", "2 is not a probability", ""] {
            assert_eq!(explained(said), None, "{said}");
        }
    }
}
