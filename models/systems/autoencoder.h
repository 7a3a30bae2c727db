#pragma once

#include "models/systems/system.h"

namespace kt {

/// A user's history through an encoder, hidden layers and a decoder, one output a video:
///
///   h1 = relu(sum over the history of input * encoder[video] + bias), dropout
///   hk = relu(h(k-1) W + b), the last with dropout
///   output = h . decoder[video] + decoder_bias[video] [+ means of user and video]
///
/// Losses are of all videos that have training rows, with target 0 where the user has none (binary: the multi-label form
/// of AutoRec), or of the user's own alone.
/// Source: Sedhain et al., "AutoRec: Autoencoders meet collaborative filtering", WWW 2015; Liang et al., "Variational
/// autoencoders for collaborative filtering", WWW 2018 (dropout of the input).
SystemEntry autoencoder_entry();

/// Arrays: tables of videos, and the first bias, behind which the weights of the hidden layers stand.
inline constexpr const char *kEncoder = "encoder", *kEncoderBias = "encoder_bias",
                            *kDecoder = "decoder", *kDecoderBias = "decoder_bias";

}  // namespace kt
