"""Training speed of dcn_v2 and dlrm in PyTorch on a CPU, of the sizes of configs/dcn_v2.yaml and configs/dlrm.yaml.

  cpu_fields_torch.py eager|compiled --model dcn_v2|dcn_v2_whole|dlrm --global-batch B [--rows N ...] [--seconds S]
  torchrun --nproc-per-node 2 cpu_fields_torch.py ddp --model ... --global-batch B ...
                    as cpu_ncf_torch.py

What users and videos have is random, since it does not change the speed. dcn_v2_whole: cross layers of whole matrices.
"""
import torch
from torch import nn

from cpu_ncf import parse_options
from cpu_ncf_torch import FORMS, measure_training

WIDTH = 16  # of an embedding
USER_CODES = [5, 3, 3, 3, 9, 8, 8, 8, 3, 9, 31, 1077, 13, 11, 4, 48, 341, 8, 6, 4, 3, 3, 3, 3, 3, 3]  # of each column
VIDEO_CODES = [39, 138, 220, 3, 6, 4, 51, 8370, 8496, 210]
TAGS, USER_NUMBERS, VIDEO_NUMBERS = 31, 1, 16
FIELDS = 2 + len(USER_CODES) + len(VIDEO_CODES) + 1
DROPOUT = 0.2


def layers(widths, dropout=0.0):
    """Dense layers, each with a ReLU and what is dropped of it."""
    made = []
    for width_in, width_out in zip(widths, widths[1:]):
        made += [nn.Linear(width_in, width_out), nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
    return nn.Sequential(*made)


class Fields(nn.Module):
    """Embeddings of ids, categories and tags; numbers."""

    def __init__(self, users, videos):
        super().__init__()
        self.user_table = nn.Embedding(users, WIDTH)
        self.video_table = nn.Embedding(videos, WIDTH)
        self.user_codes = nn.Embedding(sum(USER_CODES), WIDTH)
        self.video_codes = nn.Embedding(sum(VIDEO_CODES), WIDTH)
        self.tags = nn.Linear(TAGS, WIDTH, bias=False)
        self.register_buffer("codes_of_users", self.draw_codes(users, USER_CODES))
        self.register_buffer("codes_of_videos", self.draw_codes(videos, VIDEO_CODES))
        tags = (torch.rand(videos, TAGS) < 1.5 / TAGS).float()
        self.register_buffer("tags_of_videos", tags / tags.sum(1, keepdim=True).clamp(min=1))
        self.register_buffer("numbers_of_users", torch.randn(users, USER_NUMBERS))
        self.register_buffer("numbers_of_videos", torch.randn(videos, VIDEO_NUMBERS))

    @staticmethod
    def draw_codes(rows, counts):
        """Rows of one table of all columns. [rows, columns]"""
        begin = torch.tensor([0, *counts]).cumsum(0)
        return torch.stack([first + torch.randint(count, (rows,)) for first, count in zip(begin, counts)], 1)

    def forward(self, user, video):
        """[rows], [rows] -> [rows, FIELDS * WIDTH], [rows, numbers]"""
        of_user = self.user_codes(self.codes_of_users.index_select(0, user)).flatten(1)
        of_video = self.video_codes(self.codes_of_videos.index_select(0, video)).flatten(1)
        tags = self.tags(self.tags_of_videos.index_select(0, video))
        numbers = [self.numbers_of_users.index_select(0, user), self.numbers_of_videos.index_select(0, video)]
        return torch.cat([self.user_table(user), self.video_table(video), of_user, of_video, tags], 1), torch.cat(numbers, 1)


class DcnV2(nn.Module):
    """Two cross layers, of matrices of that rank or whole, beside layers of 64 and 32."""

    def __init__(self, users, videos, rank=32):
        super().__init__()
        self.fields = Fields(users, videos)
        width = FIELDS * WIDTH + USER_NUMBERS + VIDEO_NUMBERS
        self.cross = nn.ModuleList(
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width)) if rank
            else nn.Linear(width, width) for _ in range(2))
        self.hidden = layers([width, 64, 32], DROPOUT)
        self.output = nn.Linear(width + 32, 1)

    def forward(self, user, video):  # [rows], [rows] -> [rows]
        x0 = x = torch.cat(self.fields(user, video), 1)
        for layer in self.cross:
            x = torch.addcmul(x, x0, layer(x))
        return self.output(torch.cat([x, self.hidden(x0)], 1)).squeeze(1)


class Dlrm(nn.Module):
    """A layer of 32 over numbers, dots of every two embeddings, layers of 64 and 32 over all of that."""

    def __init__(self, users, videos):
        super().__init__()
        self.fields = Fields(users, videos)
        self.bottom = layers([USER_NUMBERS + VIDEO_NUMBERS, 32])
        self.bottom_output = nn.Linear(32, WIDTH)
        vectors = FIELDS + 1
        self.register_buffer("pairs", torch.tril_indices(vectors, vectors, -1))
        self.top = layers([vectors * WIDTH + self.pairs.shape[1], 64, 32], DROPOUT)
        self.output = nn.Linear(32, 1)

    def forward(self, user, video):  # [rows], [rows] -> [rows]
        fields, numbers = self.fields(user, video)
        all_vectors = torch.cat([self.bottom_output(self.bottom(numbers)), fields], 1)
        vectors = all_vectors.view(len(user), -1, WIDTH)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.output(self.top(torch.cat([all_vectors, dots], 1))).squeeze(1)


MODELS = {"dcn_v2": DcnV2, "dcn_v2_whole": lambda users, videos: DcnV2(users, videos, rank=0), "dlrm": Dlrm}


def main():
    options = parse_options(__doc__, FORMS, list(MODELS))
    measure_training(options, MODELS[options.model])


if __name__ == "__main__":
    main()
