"""The coordinator: takes jobs, keeps them, walks their stages, schedules with Ray."""
