#include "launch/log.h"
