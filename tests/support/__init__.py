"""What tests share: real servers, workers, launchers and fleets as processes."""
