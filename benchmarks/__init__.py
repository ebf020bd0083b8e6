"""fedbridge against TFF and FedJAX, side by side in one run; see README.md."""
