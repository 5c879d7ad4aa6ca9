//! The `parity` command: see `parity --help`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let usual = std::panic::take_hook();
    // A panic that the engine candle turns into an error is said once, by that error.
    std::panic::set_hook(Box::new(move |panic| {
        if !onnx_session::candle::catches_panics() {
            usual(panic);
        }
    }));
    cli::main()
}
