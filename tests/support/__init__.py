"""What several tests are made of: builders, tiny runs and studies, children that can be killed."""
