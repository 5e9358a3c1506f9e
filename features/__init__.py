"""What is known about a person, as numbers. This package knows neither events nor topics nor clocks."""
