"""A Python job that does nothing: what spark-submit costs by itself."""
