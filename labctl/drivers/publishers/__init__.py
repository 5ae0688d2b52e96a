"""Publishers of cloud images: their indexes, their files, their signatures."""
