"""Networks: torchvision's own for ImageNet, small ones of the same blocks for the embedded benchmark."""
