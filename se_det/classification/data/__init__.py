"""Data of image classification: data sets from folders, lists and shards, transforms, the sampler and the loaders."""
