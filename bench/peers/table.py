"""The positive pairs of a table, as the peers of whole matrices read them."""
import numpy
import polars
import scipy.sparse


def read_pairs(path, threshold):
    """[users, videos], 1 where a row of the pair has at least `threshold`, one row and column for each id there is."""
    table = polars.read_csv(path, columns=["user_id", "video_id", "watch_ratio"])
    users, user = numpy.unique(table["user_id"].to_numpy(), return_inverse=True)
    videos, video = numpy.unique(table["video_id"].to_numpy(), return_inverse=True)
    kept = table["watch_ratio"].to_numpy() >= threshold
    matrix = scipy.sparse.csr_matrix((numpy.ones(kept.sum(), numpy.float32), (user[kept], video[kept])),
                                     shape=(len(users), len(videos)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
