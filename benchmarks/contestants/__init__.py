"""What the service is measured against; each is run by uvicorn as a process of its own."""
