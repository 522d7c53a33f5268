"""A package, so that the browser ends with its tests: Playwright keeps an event loop running."""
