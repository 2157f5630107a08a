"""Rungs of the ladder: what to do once the trigger is on. Each is an `Intervention` of its own, so each can be an arm."""

from failsight.interventions.rungs.backtrack import Backtrack as Backtrack
from failsight.interventions.rungs.fallback import Fallback as Fallback
from failsight.interventions.rungs.limit import Limit as Limit
from failsight.interventions.rungs.limit import conservative as conservative
from failsight.interventions.rungs.limit import limits_of as limits_of
from failsight.interventions.rungs.regain_view import RegainView as RegainView
from failsight.interventions.rungs.reinstruct import Reinstruct as Reinstruct
from failsight.interventions.rungs.replan import Replan as Replan
from failsight.interventions.rungs.resample import Resample as Resample
from failsight.interventions.rungs.retry import Retry as Retry
from failsight.interventions.rungs.slow import Slow as Slow
from failsight.interventions.rungs.stop import SafeStop as SafeStop
from failsight.interventions.rungs.takeover import Takeover as Takeover
from failsight.interventions.rungs.watch import Watch as Watch
